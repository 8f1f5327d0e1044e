from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers import ImageFolderReader
from lightning_modules import ExpressionClassifier, Labeller
from lightning_modules.labeller import FaceLabel
from tests.fixtures.face_pictures import noise, save_noise, save_run
from tests.fixtures.tiny_generator import NAMES, SIDE, tiny_classifier


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    return Labeller(tiny_classifier(), batch_size=3)


def rows(found: list[FaceLabel]) -> torch.Tensor:
    return torch.tensor([list(face.probabilities.values()) for face in found])


# ------------------------------------------------------------------ as evaluation


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test split with pictures of several sizes, grey ones among them."""
    root = tmp_path_factory.mktemp("faces")
    for number, (height, width, grey) in enumerate([(16, 16, False), (33, 20, False), (60, 71, True), (12, 9, False)]):
        for name in NAMES:
            save_noise(root / "test" / name / f"{number}.png", height, width, 10 * number + len(name), grey)
    return root


@pytest.mark.parametrize(
    ("reader_size", "data_size", "changes"),
    [
        (24, None, {}),  # the reader resizes, then the classifier
        (SIDE, None, {"flip_tta": True}),
        (24, 20, {}),  # all three do
        (24, SIDE, {"in_channels": 1}),
    ],
)
def test_the_probabilities_are_those_of_evaluation(
    root: Path, tmp_path: Path, reader_size: int, data_size: int | None, changes: dict[str, Any]
) -> None:
    settings = {"reader": {"init_args": {"image_size": reader_size}}, "image_size": data_size}
    run = save_run(tmp_path / "run", settings, **changes)
    reader = ImageFolderReader(str(root), list(NAMES), image_size=reader_size)
    data = ExpressionDataModule(reader, eval_batch_size=5, image_size=data_size, predict_split="test")
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **quiet)
    batches: Any = trainer.predict(ExpressionClassifier.load_trained(run), datamodule=data)
    expected = torch.cat([batch["probabilities"] for batch in batches])
    names = [name for batch in batches for name in batch["sample_id"]]
    found = rows(Labeller.load_trained(run, batch_size=4).label([root / name for name in names]))
    assert len(found) == 12 and expected.std(0).min() > 1e-5
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_without_a_config_the_classifier_resizes(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", flip_tta=True)
    picture = noise(40, 43, 3)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    expected = ExpressionClassifier.load_trained(run).predict_probabilities(pixels)
    torch.testing.assert_close(rows(Labeller.load_trained(run).label(picture)), expected, atol=1e-6, rtol=0)


# ------------------------------------------------------------------ every form of a picture


def test_every_form_of_a_picture_is_the_same_one(labeller: Labeller, tmp_path: Path) -> None:
    picture = noise(SIDE, SIDE, 1)
    save_noise(tmp_path / "a.png", SIDE, SIDE, 1)
    first = torch.from_numpy(picture).permute(2, 0, 1)
    forms: list[Any] = [
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        Image.fromarray(picture),
        picture,
        picture[:, ::-1][:, ::-1],  # of negative strides
        torch.from_numpy(picture),
        first,
        first[None],
        torch.from_numpy(picture)[None],
        first.float() / 255,
        first[None].double() / 255,
        (picture / 255).astype(np.float32),
    ]
    expected = labeller.label(forms[0])
    assert len(expected) == 1 and expected[0].label in NAMES
    assert (
        expected[0].confidence
        == max(expected[0].probabilities.values())
        == expected[0].probabilities[expected[0].label]
    )
    for form in forms:
        torch.testing.assert_close(rows(labeller.label(form)), rows(expected), atol=1e-6, rtol=0)
    assert len(labeller.label(forms)) == len(forms)


def test_grey_and_transparent_pictures_are_seen_as_in_training(labeller: Labeller) -> None:
    grey = noise(SIDE, SIDE, 2, grey=True)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    expected = rows(labeller.label(colour))
    opaque = Image.fromarray(np.concatenate([colour, np.full((SIDE, SIDE, 1), 255, np.uint8)], -1), "RGBA")
    for form in (grey, grey[..., None], Image.fromarray(grey), torch.from_numpy(grey)[None, None] / 255, opaque):
        torch.testing.assert_close(rows(labeller.label(form)), expected, atol=1e-6, rtol=0)


def test_a_batch_has_a_label_each(labeller: Labeller) -> None:
    pictures = np.stack([noise(SIDE, SIDE, seed) for seed in range(7)])
    single = torch.cat([rows(labeller.label(picture)) for picture in pictures])
    torch.testing.assert_close(rows(labeller.label(pictures)), single, atol=1e-6, rtol=0)
    assert labeller.label([]) == [] and labeller.label(torch.empty(0, 3, 9, 9)) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((16, 16, 3), np.int64), "image: found int64, expected uint8 in 0…255 or floats in [0, 1]"),
        (np.zeros((16, 16, 3), bool), "image: found bool, expected"),
        (np.full((16, 16, 3), 200.0, np.float32), "found float32 from 200 to 200, expected floats in [0, 1] (0…255"),
        (torch.randn(2, 3, 16, 16), "expected floats in [0, 1]"),
        (torch.full((1, 3, 16, 16), torch.nan), "found float32 from nan to nan, expected floats in [0, 1]"),
        (np.ones((16, 16, 3), np.uint8), "found uint8 from 1 to 1, expected 0…255 (or floats in [0, 1])"),
        (np.zeros((16, 16, 4), np.uint8), "found the shape (16, 16, 4), neither 1 nor 3 channels"),
        (np.zeros((3, 9, 3), np.uint8), "found the shape (3, 9, 3), channels that may come first or last"),
        (np.zeros((2, 2, 3, 9, 9), np.uint8), "found the shape (2, 2, 3, 9, 9), expected a path"),
        (np.zeros((3, 0, 9), np.uint8), "found the shape (3, 0, 9)"),
        (np.array(["a.png"]), "image: found numpy <U5, expected a path"),
        (7, "image: found int, expected a path"),
        ([noise(9, 9), None], "image 1: found NoneType, expected a path"),
        (Image.fromarray(np.zeros((9, 9), np.float32)), "found a PIL image with pixels of floating-point numbers"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_was_found(labeller: Labeller, given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r".*") as refused:
        labeller.label(given)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_file_and_a_folder_are_refused(labeller: Labeller, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.png: found no file, expected an image file"):
        labeller.label(tmp_path / "a.png")
    with pytest.raises(ValueError, match="found a folder, expected an image file"):
        labeller.label(tmp_path)
