"""Modules that were written before files said their kind still load, and still say the same (contract C10)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import train
from datamodules.readers import SyntheticSetReader
from lightning_modules.action_unit_estimator import ActionUnitEstimator
from lightning_modules.annotator import LabelAnnotator
from lightning_modules.augmenter import SemanticAugmenter
from lightning_modules.backbone_weights import read_backbone
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.frozen_features import FrozenFeatures
from lightning_modules.generator import ExpressionGenerator
from synfer.foundation.module_file import kind_of
from synfer.networks.au_estimator import ActionUnitNetwork

FIXTURES = Path(__file__).parents[1] / "fixtures"
OLD = FIXTURES / "d408323"
GENERATOR = OLD / "generator" / "checkpoints" / "last.ckpt"
ANNOTATOR = OLD / "annotator" / "checkpoints" / "last.ckpt"
ESTIMATOR = OLD / "au_estimator" / "checkpoints" / "last.ckpt"
FACES = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("d408323/generator/checkpoints/last.ckpt", "diffusion"),
        ("d408323/generator_folder", "diffusion"),
        ("d408323/annotator", "annotator"),
        ("d408323/au_estimator/checkpoints/last.ckpt", "au_estimator"),
        ("d408323/au_estimator/au_estimator", "au_estimator"),
        ("cacc19f/classifier-step3.ckpt", "classifier"),
        ("eea514f/augmenter", "vae_gan"),
        ("eea514f/augmenter_folder", "vae_gan"),
        ("b16f87e/pretraining", "pretraining"),
        ("b16f87e/zero_shot", "zero_shot"),
    ],
)
def test_their_kind_is_seen(path: str, kind: str) -> None:
    assert kind_of(FIXTURES / path) == kind


def test_a_generator() -> None:
    checkpoint, folder = (ExpressionGenerator.load_trained(path) for path in (GENERATOR, OLD / "generator_folder"))
    assert folder.exported_from == checkpoint.weights_fingerprint() == "eb5cbc59556c8e89"
    assert folder.weights_fingerprint() == "da02a31c1ed08eff"  # rounded to float16
    stored = torch.load(GENERATOR, weights_only=True)
    assert stored["hyper_parameters"]["warmup_share"] == checkpoint.hparams["warmup_fraction"] == 0.03
    flat, network = stored["hyper_parameters"], checkpoint.hparams["network"]
    assert all(network[name] == flat[name] for name in ("unet", "text_encoder", "scheduler", "codec", "codec_config"))
    assert checkpoint.hparams["execution"]["bf16_sampling"] is flat["bf16_sampling"] is False
    average = stored["ema"]["average"]
    assert all(torch.equal(average[name], p) for name, p in checkpoint.model.named_parameters() if name in average)


def test_an_annotator() -> None:
    with pytest.warns(UserWarning, match="temperature was fitted at step 5"):
        annotator = LabelAnnotator.load_trained(ANNOTATOR, generator=str(GENERATOR))
    assert annotator.weights_fingerprint() == "fef0d1f7ca4f874d"
    with pytest.warns(UserWarning, match="temperature was fitted at step 5"):
        LabelAnnotator.load_trained(ANNOTATOR, generator=str(OLD / "generator_folder"))  # the export of it


def test_an_estimator_of_action_units() -> None:
    estimator = ActionUnitNetwork.load(OLD / "au_estimator" / "au_estimator")
    module = ActionUnitEstimator(**torch.load(ESTIMATOR, weights_only=True)["hyper_parameters"])
    module.load_state_dict(torch.load(ESTIMATOR, weights_only=True)["state_dict"])
    assert torch.equal(module.eval().estimator(FACES), estimator(FACES))


def test_a_classifier() -> None:
    classifier = ExpressionClassifier.load_trained(FIXTURES / "cacc19f" / "classifier-step5.ckpt")
    assert classifier.weights_fingerprint() == "3d4bf8a2e8b76a55"
    assert ExpressionClassifier.load_trained(OLD / "classifier").weights_fingerprint() == "282a663cde0ac748"
    assert ExpressionClassifier.load_trained(OLD / "mixed").weights_fingerprint() == "e80bac5a87ef636e"


def test_an_augmenter_and_its_set() -> None:
    made = FIXTURES / "eea514f"
    checkpoint, folder = (SemanticAugmenter.load_trained(made / name) for name in ("augmenter", "augmenter_folder"))
    assert checkpoint.weights_fingerprint() == folder.exported_from == "48fa1140cccd3065"
    assert folder.weights_fingerprint() == "ad2584f662480e71"  # rounded to float16
    assert checkpoint.taught_by == folder.taught_by == ("e86ddfa8e70bdfd3",)
    assert checkpoint.sampling == folder.sampling and checkpoint.sampling.mode == "interpolate"
    table = SyntheticSetReader(str(made / "synthesis" / "synthetic_set"), "basic7").read("train")
    assert len(table) == table.report.read == 14


def test_classifiers_with_a_loss_for_rare_classes_and_a_plan(tmp_path: Path) -> None:
    made = FIXTURES / "eea514f"
    assert ExpressionClassifier.load_trained(made / "classifier").weights_fingerprint() == "2cb705c71434b697"
    settings = [f"--config={made / 'settings' / name}.yaml" for name in ("data", "classifier", "planned")]
    more = [f"--synthesis.generator={made / 'augmenter_folder'}", "--trainer.max_steps=9", f"--run_dir={tmp_path}"]
    checkpoint = f"--ckpt_path={made / 'planned' / 'checkpoints' / 'last.ckpt'}"
    with pytest.warns(UserWarning, match="rare classes are drawn more often and weigh more as well"):
        cli = train.main(["fit", *settings, *more, checkpoint, "--trainer.logger=false"])
    assert cli.trainer.global_step == 9  # goes on with the plan and the pool of then


REPRESENTATIONS = FIXTURES / "b16f87e"
ONE_FACE = 1 / 14 + 1e-6
"""Of a score over 14 faces: other processors round otherwise, and a face may stand between two expressions."""


def goes_on(kind: str, folder: Path) -> dict[str, float]:
    """Validates the checkpoint of a fit of then, and takes two more of its steps; returns what the validation found."""
    settings = [f"--config={REPRESENTATIONS / 'settings' / name}.yaml" for name in ("data", kind)]
    if kind == "zero_shot":
        settings.append(f"--model.init_args.clip={REPRESENTATIONS / 'clip'}")
    given = [*settings, "--seed_everything=1", f"--ckpt_path={REPRESENTATIONS / kind / 'checkpoints' / 'last.ckpt'}"]
    validated = train.main(["validate", *given, f"--run_dir={folder / 'validated'}"])
    cli = train.main(["fit", *given, "--trainer.max_steps=7", f"--run_dir={folder / 'on'}"])
    assert cli.trainer.global_step == 7
    return {name: float(value) for name, value in validated.trainer.callback_metrics.items()}


def test_a_pretraining(tmp_path: Path) -> None:
    """As the start of a classifier, as features, as a fit that goes on."""
    stored = read_backbone(str(REPRESENTATIONS / "pretraining"))
    then = json.loads((REPRESENTATIONS / "pretraining" / "summary.json").read_text())["metrics"]
    assert stored.kind == "pretraining" and stored.source()["fingerprint"] == "cfd72c1ecc8c755d"
    probe = ExpressionClassifier(backbone="stored", backbone_weights=str(REPRESENTATIONS / "pretraining"))
    assert torch.equal(probe.backbone.state_dict()["conv1.0.weight"], stored.weights["conv1.0.weight"])
    assert FrozenFeatures(str(REPRESENTATIONS / "pretraining"))(FACES).shape == (2, 16)
    found = goes_on("pretraining", tmp_path)
    assert found["val/knn_accuracy"] == pytest.approx(then["val/knn_accuracy"], abs=ONE_FACE)


def test_a_zero_shot_projection(tmp_path: Path) -> None:
    then = json.loads((REPRESENTATIONS / "zero_shot" / "summary.json").read_text())["metrics"]
    found = goes_on("zero_shot", tmp_path)
    assert {name: found[name] for name in ("val/uar", "val/war")} == pytest.approx(
        {name: then[name] for name in ("val/uar", "val/war")}, abs=ONE_FACE
    )
