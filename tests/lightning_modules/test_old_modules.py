"""Modules that were written before files said their kind still load, and still say the same (contract C10)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_modules.action_unit_estimator import ActionUnitEstimator
from lightning_modules.annotator import LabelAnnotator
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from synfer.foundation.module_file import kind_of
from synfer.networks.au_estimator import ActionUnitNetwork

FIXTURES = Path(__file__).parents[1] / "fixtures"
OLD = FIXTURES / "before_kind"
FACES = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("before_kind/generator.ckpt", "diffusion"),
        ("before_kind/generator", "diffusion"),
        ("before_kind/annotator.ckpt", "annotator"),
        ("before_kind/au_estimator.ckpt", "au_estimator"),
        ("before_kind/au_estimator", "au_estimator"),
        ("cacc19f/classifier-step3.ckpt", "classifier"),
    ],
)
def test_their_kind_is_seen(path: str, kind: str) -> None:
    assert kind_of(FIXTURES / path) == kind


def test_a_generator() -> None:
    checkpoint, folder = (ExpressionGenerator.load_trained(OLD / name) for name in ("generator.ckpt", "generator"))
    assert folder.exported_from == checkpoint.weights_fingerprint() == "ebdf3f750dd34590"
    stored = torch.load(OLD / "generator.ckpt", weights_only=True)
    assert stored["hyper_parameters"]["warmup_share"] == checkpoint.hparams["warmup_fraction"] == 0.03
    average = stored["ema"]["average"]
    assert all(torch.equal(average[name], p) for name, p in checkpoint.model.named_parameters() if name in average)


def test_an_annotator() -> None:
    annotator = LabelAnnotator.load_trained(OLD / "annotator.ckpt", generator=str(OLD / "generator.ckpt"))
    assert annotator.weights_fingerprint() == "9775988bf1eb3301"
    LabelAnnotator.load_trained(OLD / "annotator.ckpt", generator=str(OLD / "generator"))  # the export of it


def test_an_estimator_of_action_units() -> None:
    estimator = ActionUnitNetwork.load(OLD / "au_estimator")
    module = ActionUnitEstimator(**torch.load(OLD / "au_estimator.ckpt", weights_only=True)["hyper_parameters"])
    module.load_state_dict(torch.load(OLD / "au_estimator.ckpt", weights_only=True)["state_dict"])
    assert torch.equal(module.eval().estimator(FACES), estimator(FACES))


def test_a_classifier() -> None:
    classifier = ExpressionClassifier.load_trained(FIXTURES / "cacc19f" / "classifier-step5.ckpt")
    assert classifier.weights_fingerprint() == "3d4bf8a2e8b76a55"
