from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.expression_data_module import ExpressionDataModule
from experiments.command_line.checkpoint_argument import check_fits
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.voter import load_voter
from synfer.optimisation.ema import ParameterEMA
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import NAMES, SIDE, tiny_classifier, tiny_generator


def test_a_folder_holds_the_averaged_weights_to_the_last_bit(tmp_path: Path) -> None:
    classifier = tiny_classifier(ema_decay=0.5, loss={"kind": "ldam", "scale": 20.0}, flip_tta=True)
    assert isinstance(classifier.ema, ParameterEMA)
    for _ in range(2):
        classifier.ema.update()
        with torch.no_grad():
            next(classifier.backbone.parameters()).add_(1.0)
    classifier.save_trained(tmp_path)
    loaded = ExpressionClassifier.load_trained(tmp_path, label_space=NAMES)
    image = torch.rand(3, 3, SIDE, SIDE)
    assert not torch.equal(loaded(image), classifier(image))
    with classifier.ema.swapped():
        assert torch.equal(loaded.predict_probabilities(image), classifier.predict_probabilities(image))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(ValueError, match="found the label space neutral, happy, sad, expected happy, sad"):
        ExpressionClassifier.load_trained(tmp_path, label_space=["happy", "sad"])


def test_a_folder_is_tested_and_votes(tmp_path: Path) -> None:
    classifier = tiny_classifier()
    classifier.save_trained(tmp_path)
    voter = load_voter(tmp_path)
    assert voter.network.weights_fingerprint() == classifier.weights_fingerprint()
    assert voter.trained_on is None and not voter.recorded
    other = tiny_classifier(seed=1)
    check_fits(str(tmp_path), other)
    from callbacks.recording.atomic_checkpoint_io import AtomicCheckpointIO

    data = ExpressionDataModule(TinyReader(test=tiny_table(6, "test", SIDE, label_space=NAMES)))
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        plugins=[AtomicCheckpointIO()],
        devices=1,
        default_root_dir=tmp_path,
    )
    trainer.test(other, datamodule=data, ckpt_path=str(tmp_path), verbose=False)
    assert other.weights_fingerprint() == classifier.weights_fingerprint()


def test_another_folder_is_refused(tmp_path: Path) -> None:
    tiny_generator().save_trained(tmp_path / "generator")
    with pytest.raises(ValueError, match="found the kind diffusion, expected classifier"):
        ExpressionClassifier.load_trained(tmp_path / "generator")
    with pytest.raises(FileNotFoundError, match="expected a checkpoint, a run folder that has one, or a folder of"):
        ExpressionClassifier.load_trained(tmp_path)
    classifier = tiny_classifier()
    with torch.no_grad():
        next(classifier.backbone.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="expected finite weights"):
        classifier.save_trained(tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


def test_whole_numbers_and_other_ranges_are_refused() -> None:
    classifier = tiny_classifier()
    faces = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    for call in (classifier, classifier.logits, classifier.predict_probabilities):
        with pytest.raises(ValueError, match=r"image: found uint8 \(2, 3, 16, 16\), expected RGB .* \(uint8 / 255"):
            call(faces)
        with pytest.raises(ValueError, match=r"image: found the shape \(2, 2, 16, 16\), expected RGB"):
            call(faces[:, :2].float())
    with pytest.raises(ValueError, match=r"found values from \d+ to 25\d, expected RGB images"):
        classifier.predict_probabilities(faces.float())
    with pytest.raises(ValueError, match="found values from nan to nan"):
        classifier.predict_probabilities(torch.full((1, 3, SIDE, SIDE), torch.nan))
    assert classifier.predict_probabilities(faces.float() / 255).shape == (2, 3)
    grey = faces[:, :1].float() / 255  # as a data set of grey faces holds them
    expected = classifier.predict_probabilities(grey.expand(-1, 3, -1, -1))
    assert torch.equal(classifier.predict_probabilities(grey), expected)
