from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.readers import SFEWReader
from tests.fixtures.published_sets import few_pictures, rows_of, sfew


@few_pictures
@pytest.mark.parametrize(
    ("val", "happy"), [("Val_Aligned_Faces", "Happy"), ("Val_Aligned_Faces_new", "Happiness"), ("imgs", "Happy")]
)
def test_folders_of_all_spellings_are_read(tmp_path: Path, val: str, happy: str) -> None:
    reader = SFEWReader(str(sfew(tmp_path, val, happy)), image_size=22)
    train, held_out = reader.read("train"), reader.read("val")
    assert train.class_counts() == dict.fromkeys(reader.label_space, 2)
    assert held_out.class_counts() == dict.fromkeys(reader.label_space, 1)
    assert rows_of(held_out)[f"Val/{val}/{happy}/Film_9.png"] == "happy"


@few_pictures
def test_an_unknown_folder_is_an_error_and_never_passed_over(tmp_path: Path) -> None:
    folder = sfew(tmp_path) / "Train" / "Train_Aligned_Faces"
    (folder / "Sad").rename(folder / "Sadnes")
    with pytest.raises(ValueError, match=r"Sadnes/Film_0.png: unknown expression 'Sadnes': .*\(2 bad of 14 samples"):
        SFEWReader(str(tmp_path), image_size=22).read("train")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder Train/Train_Aligned_Faces or Train/imgs in"):
        SFEWReader(str(tmp_path))
    sfew(tmp_path)
    with pytest.raises(ValueError, match=r"found no official split 'test' \(train, val\)"):
        SFEWReader(str(tmp_path)).read("test")
