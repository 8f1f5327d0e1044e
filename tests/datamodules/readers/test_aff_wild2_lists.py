"""Valence and arousal, action units, and the multi-task lists of Aff-Wild2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.readers import AffWild2AffectReader, AffWild2MTLReader, AffWild2UnitsReader, DrawnReader, JoinedReader
from datamodules.rows.provenance import split_manifest
from datamodules.rows.sample_table import UNLABELLED, SampleTable
from synfer.faces.action_units import ACTION_UNITS
from tests.fixtures.published_sets import LATER_UNITS, aff_wild2_affect, aff_wild2_mtl, aff_wild2_units

VIDEO = "Annotations/{}/Train_Set/12-24.txt"
LIST = "Annotations/MTL_Challenge/train_set.txt"
UNITS = LATER_UNITS.split(",")


def units_of(table: SampleTable, row: int) -> dict[str, float]:
    """Returns the known action units of a row."""
    assert table.au is not None
    return {name: float(value) for name, value in zip(ACTION_UNITS, table.au[row], strict=True) if value == value}


@pytest.mark.parametrize("release", ["VA_Set", "VA_Estimation_Challenge"])
def test_valence_and_arousal_belong_to_the_frames_of_their_numbers(tmp_path: Path, release: str) -> None:
    table = AffWild2AffectReader(str(aff_wild2_affect(tmp_path, release))).read("val")
    assert table.sample_id.tolist() == [f"3-1-v/{number:05d}.jpg" for number in (2, *range(4, 13))]
    assert table.affect is not None and table.au is None and (table.label == UNLABELLED).all()
    np.testing.assert_allclose(table.affect[1:, 0], np.arange(4, 13) / 100, atol=1e-6)
    np.testing.assert_allclose(table.affect[1:, 1], -np.arange(4, 13) / 100, atol=1e-6)
    assert np.isnan(table.affect[0, 0]) and table.affect[0, 1] == np.float32(-0.02)  # each is masked by itself
    assert table.report.excluded == {"frames that are not annotated (−5)": 1, "frames without a detected face": 1}
    assert np.allclose(table.soft_label, 1 / 7)
    train = AffWild2AffectReader(str(tmp_path), every=4).read("train")
    assert train.group is not None and set(train.group.tolist()) == {"12-24", "7"}
    assert {name.split("/")[1] for name in train.sample_id.tolist()} == {"00005.jpg", "00009.jpg"}


def test_columns_of_valence_and_arousal_are_read_by_their_names(tmp_path: Path) -> None:
    path = aff_wild2_affect(tmp_path) / VIDEO.format("VA_Estimation_Challenge")
    before = AffWild2AffectReader(str(tmp_path)).read("train").affect
    path.write_text("\n".join(",".join(reversed(line.split(","))) for line in path.read_text().splitlines()))
    np.testing.assert_array_equal(AffWild2AffectReader(str(tmp_path)).read("train").affect, before)


@pytest.mark.parametrize("release", ["AU_Set", "AU_Detection_Challenge"])
def test_action_units_are_presence_alone_and_minus_one_is_not_absent(tmp_path: Path, release: str) -> None:
    table = AffWild2UnitsReader(str(aff_wild2_units(tmp_path, release))).read("val")
    assert table.sample_id.tolist() == [f"3-1-v/{number:05d}.jpg" for number in (2, *range(4, 13))]
    assert units_of(table, 0) == {"AU1": 1.0}
    expected = {"AU6", "AU15"} if release != "AU_Set" else {"AU6", "AU25"}
    assert {name for name, value in units_of(table, 1).items() if value} == expected | (
        {"AU26"} if release != "AU_Set" else set()
    )
    assert len(units_of(table, 1)) == (8 if release == "AU_Set" else 12)
    assert table.au_source is not None and table.affect is None
    assert {column["kind"] for column in table.au_source["columns"].values()} == {"presence"}
    assert table.report.excluded["frames that are not annotated (−1)"] == 1


def test_presence_is_not_joined_with_intensity(tmp_path: Path) -> None:
    frames = AffWild2UnitsReader(str(aff_wild2_units(tmp_path)), image_size=32)
    drawn = DrawnReader(count={"train": 8, "val": 8, "test": 8}, image_size=32, label_space="basic7")
    with pytest.warns(UserWarning, match=r"found action units of different kinds in split 'train'"):
        assert JoinedReader([frames, drawn]).read("train").au is None
    twice = JoinedReader([frames, frames]).read("train")
    assert twice.au is not None and twice.au_source == frames.read("train").au_source


def test_each_annotation_of_a_multi_task_list_is_masked_by_itself(tmp_path: Path) -> None:
    table = AffWild2MTLReader(str(aff_wild2_mtl(tmp_path))).read("val")
    frames = [int(name.split("/")[1][:5]) for name in table.sample_id.tolist()]
    assert frames == list(range(3, 15)) and table.affect is not None
    names = [None if code == UNLABELLED else table.label_space[code] for code in table.label]
    assert names[:5] == ["happy", "neutral", None, None, None]
    assert names[5:] == ["neutral", "anger", "disgust", "fear", "happy", "sad", "surprise"]
    known = np.isfinite(table.affect).all(1).tolist()
    assert known[:5] == [True, False, True, False, True] and all(known[5:])
    assert table.affect[0].tolist() == [0.25, -0.5] and table.affect[2].tolist() == [-0.75, 0.125]
    assert units_of(table, 0) == dict(zip(UNITS, [1.0, 0.0] * 6, strict=True))
    assert units_of(table, 1) == units_of(table, 2) == units_of(table, 4) == {}
    assert units_of(table, 3) == {name: float(name == "AU26") for name in UNITS}
    assert table.report.excluded == {"frames of which nothing is known": 1, "frames without a detected face": 1}
    manifest = split_manifest(table)
    assert manifest["known"] == {"expression": 9, "valence": 10, "arousal": 10}


def test_a_list_that_names_its_action_units_is_read_by_their_names(tmp_path: Path) -> None:
    path = aff_wild2_mtl(tmp_path) / LIST
    before = AffWild2MTLReader(str(tmp_path)).read("train")
    first, *lines = path.read_text().splitlines()
    rows = [line.split(",") for line in lines]
    moved = [",".join([*row[:4], *reversed(row[4:])]) for row in rows]
    path.write_text("\n".join([first.replace("aus", ",".join(reversed(UNITS))), *moved]))
    after = AffWild2MTLReader(str(tmp_path)).read("train")
    assert before.au is not None and after.au is not None
    np.testing.assert_array_equal(after.au, before.au)


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        (
            "va",
            "0.05,-0.050",
            "0.05,-2",
            r"12-24.txt, line 6: found the arousal '-2', expected a number in",
        ),
        ("va", "0.05,-0.050", "0.05", r"line 6: found '0.05', expected two numbers"),
        ("va", "valence,arousal", "0.1,0.2", r"12-24.txt: found the first line '0.1,0.2', expected valence,arousal"),
        ("au", "\n0,0,0,0,1,", "\n0,0,0,0,5,", r"line 6: found AU7 '5', expected 0, 1 or −1"),
        ("au", "\n0,0,0,0,1,", "\n0,0,0,1,", r"line 6: found 11 action units, expected 12"),
        ("au", "AU26", "AU99", r"12-24.txt: found 'AU99' in the first line, expected names of action units"),
        ("mtl", ",0.25,-0.5,4,", ",0.25,-5.5,4,", r"train_set.txt, line 3: found the arousal '-5.5'"),
        ("mtl", ",0.25,-0.5,4,", ",0.25,-0.5,8,", r"line 3: found '8', expected a code from 0 to 7, or −1"),
        ("mtl", "00004.jpg", "00003.jpg", r"line 5: found '12-24/00003.jpg' a second time, expected each frame once"),
        ("mtl", "12-24/00004", "00004", r"line 5: found the image '00004.jpg', expected <video>/00001.jpg"),
        ("mtl", "12-24/00004", "99/00004", r"line 5: found no folder .*99, expected the frames of the video"),
        ("mtl", "-1\n", "-1,0\n", r"line 2: found 17 cells, expected 16"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, kind: str, old: str, new: str, message: str) -> None:
    made = {"va": aff_wild2_affect, "au": aff_wild2_units, "mtl": aff_wild2_mtl}[kind](tmp_path)
    reader = {"va": AffWild2AffectReader, "au": AffWild2UnitsReader, "mtl": AffWild2MTLReader}[kind]
    release = {"va": "VA_Estimation_Challenge", "au": "AU_Detection_Challenge", "mtl": ""}[kind]
    path = made / (VIDEO.format(release) if release else LIST)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        reader(str(tmp_path)).read("train")
    assert len(reader(str(tmp_path), on_bad_sample="skip").read("train").report.skipped) == 1


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "cropped_aligned").mkdir()
    with pytest.raises(FileNotFoundError, match=r"found no folder VA_Set or VA_Estimation_Challenge in"):
        AffWild2AffectReader(str(tmp_path))
    aff_wild2_mtl(tmp_path)
    (tmp_path / "Annotations/MTL_Challenge/validation_set.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"found no file .*validation_set.txt in"):
        AffWild2MTLReader(str(tmp_path))
    (tmp_path / LIST).write_text("image,expression\n")
    (tmp_path / "Annotations/MTL_Challenge/validation_set.txt").write_text("")
    with pytest.raises(ValueError, match=r"train_set.txt: found the first line 'image,expression', expected image,val"):
        AffWild2MTLReader(str(tmp_path)).read("train")
