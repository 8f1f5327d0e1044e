from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.readers import KDEFReader
from datamodules.readers.people import HeldOutPeople
from tests.fixtures.published_sets import few_pictures, kdef, rows_of


@few_pictures
def test_letters_mean_by_their_place(tmp_path: Path) -> None:
    table = KDEFReader(str(kdef(tmp_path)), people=HeldOutPeople(folds=10), image_size=20).read("test")
    # Both sessions of one woman, straight: the first AF is session A, female, the second one afraid.
    assert set(table.group.tolist()) == {"F01"}  # type: ignore[union-attr]
    rows = rows_of(table)
    assert len(rows) == 14
    assert rows["AF01/AF01AFS.JPG"] == "fear" and rows["BF01/BF01ANS.JPG"] == "anger"
    assert table.report.excluded["names of the release's errata"] == 1
    assert table.report.excluded["angle HL"] == 4 * 5 * 7


@few_pictures
def test_a_woman_and_a_man_of_one_number_are_two_people(tmp_path: Path) -> None:
    reader = KDEFReader(str(kdef(tmp_path)), image_size=20)
    train = set(reader.read("train").group.tolist())  # type: ignore[union-attr]
    assert "M01" in train and "F01" not in train and len(train) == 9


@few_pictures
def test_the_folder_of_the_people_may_be_given(tmp_path: Path) -> None:
    base = kdef(tmp_path) / "KDEF_and_AKDEF"
    whole = rows_of(KDEFReader(str(tmp_path), image_size=20).read("train"))
    assert rows_of(KDEFReader(str(base), image_size=20).read("train")) == whole
    assert rows_of(KDEFReader(str(base / "KDEF"), image_size=20).read("train")) == whole


@few_pictures
def test_an_unknown_expression_or_angle_is_named(tmp_path: Path) -> None:
    folder = kdef(tmp_path) / "KDEF_and_AKDEF" / "KDEF" / "AF01"
    (folder / "AF01HAS.JPG").rename(folder / "AF01XXS.JPG")
    with pytest.raises(ValueError, match=r"AF01XXS.JPG: found the expression 'XX', expected one of AF, AN"):
        KDEFReader(str(tmp_path), image_size=20).read("train")
    with pytest.raises(ValueError, match=r"angles: found 'front', expected some of S, HL, HR, FL, FR"):
        KDEFReader(str(tmp_path), angles=["front"])
    with pytest.raises(ValueError, match=r"angles: found none"):
        KDEFReader(str(tmp_path), angles=[])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder of a person such as AF01 in"):
        KDEFReader(str(tmp_path))
