from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.readers import RAFDBCompoundReader
from tests.fixtures.published_sets import few_pictures, raf_db, rows_of

NAMES = (  # by code, from 1, as the release writes them
    "Happily Surprised",
    "Happily Disgusted",
    "Sadly Fearful",
    "Sadly Angry",
    "Sadly Surprised",
    "Sadly Disgusted",
    "Fearfully Angry",
    "Fearfully Surprised",
    "Angrily Surprised",
    "Angrily Disgusted",
    "Disgustedly Surprised",
)
STEMS = {"hap": "happy", "sur": "surprise", "dis": "disgust", "sad": "sad", "fea": "fear", "ang": "anger"}


@few_pictures
def test_both_expressions_have_half_of_the_label_and_the_first_is_the_class(tmp_path: Path) -> None:
    table = RAFDBCompoundReader(str(raf_db(tmp_path, part="compound"))).read("test")
    assert len(table) == 11 and table.soft_label.dtype == np.float32
    rows = rows_of(table)
    for row, name in enumerate(NAMES):
        first, second = (STEMS[word[:3].lower()] for word in name.split())
        assert rows[f"Image/aligned/test_{row + 1:04d}_aligned.jpg"] == first
        shares = dict(zip(table.label_space, table.soft_label[row].tolist(), strict=True))
        assert {key: share for key, share in shares.items() if share} == {first: 0.5, second: 0.5}


@few_pictures
def test_a_face_with_one_expression_outside_the_label_space_is_left_out(tmp_path: Path) -> None:
    reader = RAFDBCompoundReader(str(raf_db(tmp_path, part="compound")), label_space=["happy", "sad", "surprise"])
    table = reader.read("test")
    assert len(table) == 2 and table.report.read == 11  # happily and sadly surprised
    assert table.report.excluded["expression 'disgust' is outside the label space"] == 3
    assert sum(table.report.excluded.values()) == 9


@few_pictures
@pytest.mark.parametrize("code", ["0", "12", "14"])
def test_a_code_that_is_not_known_is_named(tmp_path: Path, code: str) -> None:
    path = raf_db(tmp_path, part="compound") / "compound" / "EmoLabel" / "list_patition_label.txt"
    path.write_text(path.read_text().replace("train_00003.jpg 2", f"train_00003.jpg {code}"))
    with pytest.raises(ValueError, match=rf"line 4: found the code '{code}', expected 1 to 11"):
        RAFDBCompoundReader(str(tmp_path)).read("train")


def test_another_number_of_pictures_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"RAF-DB compound .*, split 'test': found 11 labelled .* has 792: "):
        RAFDBCompoundReader(str(raf_db(tmp_path, part="compound"))).read("test")
