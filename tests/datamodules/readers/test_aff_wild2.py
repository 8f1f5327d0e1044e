from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.readers import AffWild2Reader
from tests.fixtures.published_sets import aff_wild2, rows_of

NAMES = ("neutral", "anger", "disgust", "fear", "happy", "sad", "surprise")  # by code, from 0
VIDEO = "Annotations/EXPR_Classification_Challenge/Train_Set/12-24.txt"


@pytest.mark.parametrize("release", ["EXPR_Set", "EXPR_Classification_Challenge", "EXPR_Recognition_Challenge"])
def test_lines_belong_to_the_frames_of_their_numbers(tmp_path: Path, release: str) -> None:
    table = AffWild2Reader(str(aff_wild2(tmp_path, release))).read("val")
    # Line 1 is -1, line 2 code 0; frame 3 (code 1) has no file, and nothing moves up into its place.
    expected = {f"3-1-v/{code + 2:05d}.jpg": name for code, name in enumerate(NAMES) if code != 1}
    assert rows_of(table) == expected
    reasons = {"frames that are not annotated (−1)": 1, "frames without a detected face": 1}
    later = {"annotated as other": 1} if release != "EXPR_Set" else {}
    assert table.report.excluded == reasons | later


def test_codes_count_in_the_order_of_the_first_line(tmp_path: Path) -> None:
    path = aff_wild2(tmp_path) / VIDEO
    before = rows_of(AffWild2Reader(str(tmp_path)).read("train"))
    first, *lines = path.read_text().splitlines()
    names = first.split(",")
    moved = [names[-1], *names[:-1]]
    codes = [line if line == "-1" else str((int(line) + 1) % len(names)) for line in lines]
    path.write_text("\n".join([" , ".join(moved), *codes]))
    assert rows_of(AffWild2Reader(str(tmp_path)).read("train")) == before


def test_two_people_of_one_video_are_one_group(tmp_path: Path) -> None:
    table = AffWild2Reader(str(aff_wild2(tmp_path))).read("train")
    assert table.group is not None and set(table.group.tolist()) == {"12-24", "7"}
    assert {name.split("/")[0] for name in rows_of(table)} == {"12-24", "7_left", "7_right"}


def test_every_second_frame_is_told_by_its_number(tmp_path: Path) -> None:
    table = AffWild2Reader(str(aff_wild2(tmp_path)), every=2).read("val")
    assert list(rows_of(table)) == ["3-1-v/00005.jpg", "3-1-v/00007.jpg"]
    assert table.report.excluded["further frames of the videos"] == 4
    with pytest.raises(ValueError, match=r"every: found 0, expected at least 1"):
        AffWild2Reader(str(tmp_path), every=0)


def test_a_frame_without_a_line_is_counted(tmp_path: Path) -> None:
    path = aff_wild2(tmp_path) / VIDEO
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n\n")
    table = AffWild2Reader(str(tmp_path)).read("train")
    assert table.report.excluded["frames without a line of annotation"] == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n6\n", "\n8\n", r"12-24.txt, line 9: found '8', expected a code from 0 to 7, or −1"),
        ("\n6\n", "\n-5\n", r"line 9: found '-5', expected a code"),
        ("\n6\n", "\n6.0\n", r"line 9: found '6.0', expected a code"),
        ("Neutral,", "Calm,", r"12-24.txt: found the first line 'Calm,.*unknown expression 'Calm'"),
        ("Neutral,Anger", "Anger,Anger", r"expected the names of the codes, each once"),
        ("Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n", "", r"found the first line '-1' "),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = aff_wild2(tmp_path) / VIDEO
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        AffWild2Reader(str(tmp_path)).read("train")
    skipped = AffWild2Reader(str(tmp_path), on_bad_sample="skip").read("train")
    assert len(skipped.report.skipped) == 1


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder cropped_aligned in"):
        AffWild2Reader(str(tmp_path))
    (tmp_path / "cropped_aligned").mkdir()
    with pytest.raises(FileNotFoundError, match=r"found no folder EXPR_Set or EXPR_Classification_Challenge or EXPR_R"):
        AffWild2Reader(str(tmp_path))
    aff_wild2(tmp_path)
    (tmp_path / "cropped_aligned" / "12-24").rename(tmp_path / "cropped_aligned" / "12-25")
    with pytest.raises(ValueError, match=r"12-24.txt: found no folder .*12-24, expected the frames of the video"):
        AffWild2Reader(str(tmp_path)).read("train")


def test_two_releases_at_once_are_refused(tmp_path: Path) -> None:
    aff_wild2(tmp_path)
    (tmp_path / "Annotations").rename(tmp_path / "later")
    aff_wild2(tmp_path, "EXPR_Set")
    with pytest.raises(ValueError, match=r"found the annotations .*EXPR_Set and .*Challenge, expected those of one"):
        AffWild2Reader(str(tmp_path))
    early = AffWild2Reader(str(tmp_path), annotations="Annotations").read("val")
    later = AffWild2Reader(str(tmp_path), annotations=str(tmp_path / "later")).read("val")
    assert "annotated as other" in later.report.excluded and "annotated as other" not in early.report.excluded
