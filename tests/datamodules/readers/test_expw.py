from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.readers import ExpWReader
from tests.fixtures.published_sets import expw, few_pictures, rows_of

NAMES = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@few_pictures
def test_every_face_of_a_picture_is_a_row(tmp_path: Path) -> None:
    table = ExpWReader(str(expw(tmp_path)), image_size=24).read("train")
    expected = {f"pic{code}.jpg#0": name for code, name in enumerate(NAMES)}
    assert rows_of(table) == {**expected, "pic0.jpg#1": "happy"}
    assert table.group is not None and table.group[0] == table.group[-1] == "pic0.jpg"


@few_pictures
def test_boxes_are_top_left_right_bottom(tmp_path: Path) -> None:
    table = ExpWReader(str(expw(tmp_path)), image_size=24).read("train")
    with Image.open(tmp_path / "image" / "origin" / "pic0.jpg") as stored:
        expected = np.array(stored)[4:28, 10:34]
    assert np.array_equal(table.images.batch(np.array([0]))[0].permute(1, 2, 0).numpy(), expected)


@few_pictures
def test_faces_of_little_confidence_can_be_left_out(tmp_path: Path) -> None:
    table = ExpWReader(str(expw(tmp_path)), min_confidence=50, image_size=24).read("train")
    assert len(table) == 7 and table.report.excluded == {"confidence below 50": 1}


@few_pictures
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pic2.jpg 0 4 10 34 28 52.5 2", "pic2.jpg 0 4 10 34 28 52.5 7", r"line 3: found the label 7, expected 0"),
        (
            "pic2.jpg 0 4 10 34 28 52.5 2",
            "pic2.jpg 0 4 10 34 28 2",
            r"line 3: found 'pic2.jpg 0 4 10 34 28 2', exp",
        ),
        (
            "pic2.jpg 0 4 10 34 28 52.5 2",
            "pic2.jpg 0 4 x 34 28 52.5 2",
            r"line 3: found .* expected image name",
        ),
        ("pic2.jpg 0", "gone.jpg 0", r"gone.jpg: cannot be read"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = expw(tmp_path) / "label" / "label.lst"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        ExpWReader(str(tmp_path), image_size=24).read("train")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no file label/label.lst in"):
        ExpWReader(str(tmp_path))
    with pytest.raises(ValueError, match=r"min_confidence: found nan"):
        ExpWReader(str(tmp_path), min_confidence=float("nan"))
