from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from callbacks.scoring_networks import ScoringFiles, ScoringNetworks
from datamodules.readers import DrawnReader
from datamodules.rows.grey_or_colour import as_rgb
from experiments.command_line.checkpoint_argument import check_fits
from experiments.command_line.project import PROJECT, SHIPPED_JUDGE
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.voter import load_voter
from tests.fixtures.tiny_generator import NAMES, SIDE, save_checkpoint, tiny_classifier, tiny_generator

FACES = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_a_folder_holds_the_averaged_weights_to_the_last_bit(tmp_path: Path) -> None:
    trained = tiny_classifier(ema_decay=0.5)
    assert trained.ema is not None
    for _ in range(2):
        trained.ema.update()
        with torch.no_grad():
            for parameter in trained.backbone.parameters():
                parameter.add_(0.1)
    checkpoint = save_checkpoint(trained, tmp_path / "last.ckpt")
    trained.save_trained(tmp_path / "folder")
    one, other = (ExpressionClassifier.load_trained(path) for path in (checkpoint, tmp_path / "folder"))
    assert one.weights_fingerprint() == other.weights_fingerprint() != trained.weights_fingerprint()
    assert torch.equal(one.predict_probabilities(FACES), other.predict_probabilities(FACES))
    other.save_trained(tmp_path / "again")  # a loaded one has no average of its own
    assert ExpressionClassifier.load_trained(tmp_path / "again").weights_fingerprint() == one.weights_fingerprint()


def test_whatever_uses_a_classifier_takes_its_folder(tmp_path: Path) -> None:
    classifier = tiny_classifier()
    classifier.save_trained(tmp_path / "judge")
    folder = str(tmp_path / "judge")
    voter = load_voter(folder)
    assert voter.network.label_space == NAMES and not voter.recorded
    networks = ScoringNetworks(ScoringFiles(judge=folder, features=folder), NAMES, [], torch.device("cpu"))
    assert torch.equal(networks.score(FACES)["probabilities"], classifier.predict_probabilities(FACES))
    other = tiny_classifier(seed=1)
    check_fits(folder, other)
    with pytest.raises(ValueError, match="label space"):
        check_fits(folder, tiny_classifier(("neutral", "sad", "happy")))


def test_another_folder_is_refused(tmp_path: Path) -> None:
    tiny_generator().save_trained(tmp_path / "generator")
    with pytest.raises(ValueError, match="found the kind diffusion, expected classifier"):
        ExpressionClassifier.load_trained(tmp_path / "generator")
    with pytest.raises(FileNotFoundError, match="no such file"):
        ScoringFiles(judge=str(tmp_path / "nowhere"))


def test_the_shipped_judge_knows_drawn_faces() -> None:
    judge = ExpressionClassifier.load_trained(PROJECT / SHIPPED_JUDGE)
    reader = DrawnReader(
        {"train": 7, "val": 7, "test": 70}, image_size=48, seed=77, zoom=1.5, variety=0.5, label_space="basic7"
    )
    faces = reader.read("test")
    seen = judge.predict_probabilities(as_rgb(faces.images.batch(np.arange(70))).float() / 255).argmax(1)
    names = [judge.label_space[code] for code in seen.tolist()]
    assert np.mean([name == faces.label_space[code] for name, code in zip(names, faces.label, strict=True)]) > 0.9
