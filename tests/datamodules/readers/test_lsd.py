from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.readers import JoinedReader, LSDReader, RAFDBReader
from datamodules.synthetic.finished_set import read_finished_set
from synfer.faces.expressions import LABEL_SPACES
from tests.fixtures.published_sets import few_pictures, lsd, raf_db, rows_of


@few_pictures
@pytest.mark.parametrize("anger", ["ANGRER", "ANGERE", "ANGER", "anger"])
def test_the_folder_of_anger_in_all_spellings(tmp_path: Path, anger: str) -> None:
    reader = LSDReader(str(lsd(tmp_path, anger)))
    assert reader.label_space == ("happy", "sad", "surprise", "fear", "disgust", "anger")
    rows = rows_of(reader.read("train"))
    assert len(rows) == 18 and rows[f"training_set_synthetic_images/{anger}/2.jpg"] == "anger"
    assert rows["training_set_synthetic_images/HAPPINESS/0.jpg"] == "happy"
    assert sorted(rows_of(reader.read("val")).values()) == sorted(reader.label_space)


@few_pictures
def test_training_faces_are_synthetic_and_the_others_real(tmp_path: Path) -> None:
    reader = LSDReader(str(lsd(tmp_path / "lsd")))
    assert reader.read("train").is_synthetic and not reader.read("val").is_synthetic
    real = RAFDBReader(str(raf_db(tmp_path / "raf")))
    joined = JoinedReader([LSDReader(str(tmp_path / "lsd"), label_space="basic7"), real])
    with pytest.raises(ValueError, match=r"found synthetic and real faces, expected one kind"):
        joined.read("train")


@few_pictures
def test_training_faces_stand_beside_real_ones(tmp_path: Path) -> None:
    table = read_finished_set(LSDReader(str(lsd(tmp_path))), LABEL_SPACES["basic7"], None, None, seed=0)
    assert table.is_synthetic and table.class_counts() == {"neutral": 0} | dict.fromkeys(LABEL_SPACES["basic7"][1:], 3)


@few_pictures
@pytest.mark.parametrize("name", ["ANGRY_FEAR", "CONTEMPT", "NEUTRAL"])
def test_an_unknown_folder_is_an_error_and_never_a_part_of_a_name(tmp_path: Path, name: str) -> None:
    (lsd(tmp_path) / "training_set_synthetic_images" / "FEAR").rename(tmp_path / "training_set_synthetic_images" / name)
    with pytest.raises(ValueError, match=rf"{name}/0.jpg: (unknown expression|found the folder) '{name}'.* \(3 bad of"):
        LSDReader(str(tmp_path)).read("train")


def test_counts_and_folders_are_checked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder training_set_synthetic_images in"):
        LSDReader(str(tmp_path))
    with pytest.warns(UserWarning, match=r"split 'train': found 18 labelled pictures, the release has 277,251"):
        LSDReader(str(lsd(tmp_path))).read("train")
