from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.readers import FERV39kReader
from tests.fixtures.published_sets import ferv39k, few_pictures, rows_of


@few_pictures
def test_labels_are_names_and_a_third_column_is_passed_over(tmp_path: Path) -> None:
    reader = FERV39kReader(str(ferv39k(tmp_path)))
    for split in ("train", "test"):
        rows = rows_of(reader.read(split))  # type: ignore[arg-type]
        assert len(rows) == 7
        assert rows[f"Action/Angry/0003-{split}/00002.jpg"] == "anger"


@few_pictures
def test_frames_are_spread_over_the_clip_and_stay_together(tmp_path: Path) -> None:
    table = FERV39kReader(str(ferv39k(tmp_path)), frames_per_clip=2).read("train")
    first = [name for name in rows_of(table) if name.startswith("Daily/Happy")]
    assert [name[-9:] for name in first] == ["00001.jpg", "00003.jpg"]
    assert len(set(table.group.tolist())) == 7  # type: ignore[union-attr]
    assert len(FERV39kReader(str(tmp_path), frames_per_clip=99).read("train")) == 7 * 4


@few_pictures
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "Daily/Happy/0000-train Happy",
            "Daily/Happy/0000-train 0",
            r"csv, line 1: found the number '0', expected",
        ),
        (
            "Daily/Happy/0000-train Happy",
            "Daily/Happy/0000-train",
            r"line 1: found 'Daily/Happy/0000-train', expected a clip's path",
        ),
        ("Daily/Happy/0000-train Happy", "Daily/Happy/9 Happy", r"line 1: found no clip 'Daily/Happy/9' in"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = ferv39k(tmp_path) / "4_setups" / "All_scenes" / "train_All.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        FERV39kReader(str(tmp_path)).read("train")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder 2_ClipsforFaceCrop in"):
        FERV39kReader(str(tmp_path))
    with pytest.raises(ValueError, match=r"frames_per_clip: found 0"):
        FERV39kReader(str(tmp_path), frames_per_clip=0)
