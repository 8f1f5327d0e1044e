from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.readers import JAFFEReader
from tests.fixtures.published_sets import few_pictures, jaffe, rows_of


@few_pictures
def test_the_second_part_of_a_name_is_the_expression(tmp_path: Path) -> None:
    reader = JAFFEReader(str(jaffe(tmp_path)))
    rows = {**rows_of(reader.read("train")), **rows_of(reader.read("test"))}
    assert len(rows) == 70
    assert rows["SA.HA1.53.tiff"] == "happy" and rows["NA.FE1.38.tiff"] == "fear"
    test = reader.read("test")
    assert set(test.group.tolist()) == {"KA"}  # type: ignore[union-attr]
    assert test.report.excluded["files of another kind"] == 1


@few_pictures
def test_a_name_of_another_form_is_named(tmp_path: Path) -> None:
    (jaffe(tmp_path) / "KA.AN1.1.tiff").rename(tmp_path / "KA.XX1.1.tiff")
    with pytest.raises(ValueError, match=r"KA.XX1.1.tiff: found a name of another form, expected PERSON.EXPRESSION1"):
        JAFFEReader(str(tmp_path)).read("train")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no picture named like KA.AN1.39.tiff in"):
        JAFFEReader(str(tmp_path))
