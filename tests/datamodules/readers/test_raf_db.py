from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.readers import RAFDBReader
from tests.fixtures.published_sets import few_pictures, raf_db, rows_of

NAMES = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")  # by code, from 1


@few_pictures
@pytest.mark.parametrize("beside", [False, True])
def test_rows_are_those_of_the_list(tmp_path: Path, beside: bool) -> None:
    reader = RAFDBReader(str(raf_db(tmp_path, beside)))
    assert rows_of(reader.read("test")) == {
        f"Image/aligned/test_{code:04d}_aligned.jpg": name for code, name in enumerate(NAMES, start=1)
    }
    train = rows_of(reader.read("train"))
    assert len(train) == 14 and train["Image/aligned/train_00007_aligned.jpg"] == "happy"
    assert rows_of(RAFDBReader(str(tmp_path / "basic")).read("train")) == train


@few_pictures
def test_original_pictures_are_cut_out_by_their_boxes(tmp_path: Path) -> None:
    table = RAFDBReader(str(raf_db(tmp_path)), images="original").read("test")
    with Image.open(tmp_path / "basic" / "Image" / "original" / "test_0001.jpg") as stored:
        expected = np.array(stored)[3:23, 8:28]
    assert np.array_equal(table.images.batch(np.array([0]))[0].permute(1, 2, 0).numpy(), expected)


def test_another_number_of_pictures_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"RAF-DB basic .*, split 'test': found 7 labelled pictures, .* has 3,068: "):
        RAFDBReader(str(raf_db(tmp_path))).read("test")


@few_pictures
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train_00003.jpg 2", "train_00003.jpg 8", r"list_patition_label.txt, line 4: found the code '8', expected 1"),
        ("train_00003.jpg 2", "train_00003.jpg 0", r"found the code '0', expected 1 to 7"),
        ("train_00003.jpg 2", "train_00003.jpg", r"line 4: found 'train_00003.jpg', expected 'train_00001.jpg 5'"),
        ("train_00003.jpg 2", "valid_00003.jpg 2", r"line 4: found 'valid_00003.jpg 2', expected"),
        ("train_00003.jpg 2", "train_00099.jpg 2", r"train_00099_aligned.jpg: cannot be read"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = raf_db(tmp_path) / "basic" / "EmoLabel" / "list_patition_label.txt"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        RAFDBReader(str(tmp_path)).read("train")
    skipped = RAFDBReader(str(tmp_path), on_bad_sample="skip").read("train")
    assert len(skipped) == 13 and len(skipped.report.skipped) == 1


@few_pictures
def test_lines_in_another_order_are_the_same_rows(tmp_path: Path) -> None:
    path = raf_db(tmp_path) / "basic" / "EmoLabel" / "list_patition_label.txt"
    before = rows_of(RAFDBReader(str(tmp_path)).read("train"))
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert rows_of(RAFDBReader(str(tmp_path)).read("train")) == before


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root: found no list_patition_label.txt in .* \(there: nothing\)"):
        RAFDBReader(str(tmp_path))
    with pytest.raises(ValueError, match=r"images: found 'cropped', expected aligned or original"):
        RAFDBReader(str(tmp_path), images="cropped")  # type: ignore[arg-type]
    raf_db(tmp_path)
    with pytest.raises(ValueError, match=r"found no official split 'val' \(train, test\), .*splits \{val: test\}"):
        RAFDBReader(str(tmp_path)).read("val")
    (tmp_path / "basic" / "Image" / "aligned").rename(tmp_path / "basic" / "Image" / "crops")
    with pytest.raises(FileNotFoundError, match=r"found no folder Image/aligned"):
        RAFDBReader(str(tmp_path))


@few_pictures
def test_a_damaged_box_is_named(tmp_path: Path) -> None:
    box = raf_db(tmp_path) / "basic" / "Annotation" / "boundingbox" / "test_0002_boundingbox.txt"
    box.write_text("8 4 28")
    with pytest.raises(ValueError, match=r"test_0002_boundingbox.txt: holds no four numbers, expected left, top"):
        RAFDBReader(str(tmp_path), images="original").read("test")
    box.write_text("60 4 80 9")
    with pytest.raises(ValueError, match=r"found the box \(60, 4, 80, 9\) in a picture of 40x30, expected one inside"):
        RAFDBReader(str(tmp_path), images="original").read("test")


# ---------------------------------------------------------------- gender, race and age


@few_pictures
def test_gender_race_and_age_are_kept_by_their_names(tmp_path: Path) -> None:
    table = RAFDBReader(str(raf_db(tmp_path))).read("test")
    assert {name: values.tolist()[:4] for name, values in table.attributes.items()} == {
        "gender": ["unsure", "unsure", "unsure", "unsure"],
        "race": ["Caucasian", "African-American", "Caucasian", "African-American"],
        "age": ["20-39", "0-3", "40-69", "4-19"],
    }
    assert table.select(np.array([2, 0])).attributes["age"].tolist() == ["40-69", "20-39"]
    assert not RAFDBReader(str(tmp_path), attributes=False).read("test").attributes


@few_pictures
@pytest.mark.parametrize("codes", ["3 0 0", "0 3 0", "0 0 5", "-1 0 0", "0 0", "0 0 0 0", "a 0 0"])
def test_an_attribute_that_is_not_known_is_named(tmp_path: Path, codes: str) -> None:
    path = raf_db(tmp_path) / "basic" / "Annotation" / "manual" / "test_0002_manu_attri.txt"
    path.write_text("\n".join(["1\t2"] * 5 + codes.split()))
    with pytest.raises(ValueError, match=r"test_0002_manu_attri.txt: holds no five points with three known codes, "):
        RAFDBReader(str(tmp_path)).read("test")


@few_pictures
def test_a_copy_without_attributes_is_read_unless_they_are_wanted(tmp_path: Path) -> None:
    root = str(raf_db(tmp_path, attributes=False))
    assert not RAFDBReader(root).read("test").attributes
    with pytest.raises(FileNotFoundError, match="found no folder Annotation/manual"):
        RAFDBReader(root, attributes=True)
