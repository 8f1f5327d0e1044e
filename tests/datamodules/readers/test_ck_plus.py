from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.readers import CK48Reader, CKPlusReader
from datamodules.readers.people import HeldOutPeople
from tests.fixtures.published_sets import ck48, ck_plus, few_pictures, rows_of

pytestmark = few_pictures


def test_last_frames_are_the_expression_and_the_first_is_neutral(tmp_path: Path) -> None:
    table = CKPlusReader(str(ck_plus(tmp_path))).read("test")  # the first of ten people
    assert rows_of(table) == {
        "S010/001/S010_001_00000001.png": "neutral",
        **{f"S010/001/S010_001_0000000{frame}.png": "anger" for frame in (3, 4, 5)},
    }
    assert table.report.excluded["frames of sequences without a label"] == 10 * 5
    assert table.report.excluded["of people of other splits"] == 9 * 4
    short = CKPlusReader(str(tmp_path), last_frames=1, first_as_neutral=False).read("test")
    assert rows_of(short) == {"S010/001/S010_001_00000005.png": "anger"}


def test_nobody_is_on_both_sides(tmp_path: Path) -> None:
    root = str(ck_plus(tmp_path))
    for test in range(10):
        reader = CKPlusReader(root, people=HeldOutPeople(10, val=(test + 1) % 10, test=test))
        groups = [set(reader.read(split).group.tolist()) for split in ("train", "val", "test")]  # type: ignore[union-attr]
        assert [len(group) for group in groups] == [8, 1, 1] and not set.intersection(*groups)
        assert len(set.union(*groups)) == 10
    plain = CKPlusReader(root)
    assert rows_of(plain.read("val")) == rows_of(plain.read("test"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("   8.0000000e+00\n", r"emotion.txt: found no code from 0 to 7, expected one number"),
        ("   2.5000000e+00\n", r"found no code from 0 to 7"),
        ("", r"found no code from 0 to 7"),
    ],
)
def test_a_label_that_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    label = next((ck_plus(tmp_path) / "Emotion" / "S010" / "001").iterdir())
    label.write_text(text)
    with pytest.raises(ValueError, match=message):
        CKPlusReader(str(tmp_path)).read("train")


def test_a_sequence_with_two_labels_or_few_frames_is_named(tmp_path: Path) -> None:
    folder = ck_plus(tmp_path) / "Emotion" / "S010" / "001"
    (folder / "S010_001_00000004_emotion.txt").write_text("1.0")
    with pytest.raises(ValueError, match=r"Emotion/S010/001: found 2 labels, expected one"):
        CKPlusReader(str(tmp_path)).read("train")
    with pytest.raises(ValueError, match=r"S011/001: found 5 frames, expected at least 7"):
        CKPlusReader(str(tmp_path), last_frames=6).read("train")


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ({"folds": 1}, r"people.folds: found 1, expected at least 2"),
        ({"test": 10}, r"people.test: found 10, expected a fold from 0 to 9"),
        ({"val": -1}, r"people.val: found -1, expected a fold from 0 to 9"),
    ],
)
def test_folds_out_of_range_are_refused(people: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeldOutPeople(**people)


def test_more_folds_than_people_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"people.folds: found 10 folds for 3 people, expected at most as many"):
        CKPlusReader(str(ck_plus(tmp_path, people=3))).read("train")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder cohn-kanade-images in"):
        CKPlusReader(str(tmp_path))
    with pytest.raises(ValueError, match=r"last_frames: found 0, expected at least 1"):
        CKPlusReader(str(tmp_path), last_frames=0)


# ---------------------------------------------------------------- the copy of 48 pixels


def test_the_copy_is_split_by_the_people_in_its_names(tmp_path: Path) -> None:
    reader = CK48Reader(str(ck48(tmp_path)))
    test = reader.read("test")
    assert set(test.group.tolist()) == {"S010"} and len(test) == 7 * 3  # type: ignore[union-attr]
    assert rows_of(test)["sadness/S010_006_00000012.png"] == "sad"
    assert "neutral" not in reader.label_space


def test_a_name_without_a_person_is_named(tmp_path: Path) -> None:
    (ck48(tmp_path) / "anger" / "S010_001_00000011.png").rename(tmp_path / "anger" / "1.png")
    with pytest.raises(ValueError, match=r"anger/1.png: found a name without a person, expected one such as S010_004"):
        CK48Reader(str(tmp_path)).read("train")


def test_the_copy_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder named by an expression in"):
        CK48Reader(str(tmp_path))
