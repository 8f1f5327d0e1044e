from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from synfer.faces.face_detector import FaceBox
from synfer.labels.labelled_faces import LabelledFaces, check_out

NAMES = ("happy", "sad")


def three() -> LabelledFaces:
    faces = LabelledFaces(NAMES)
    faces.add_face("a, b.png", None, 0, FaceBox(1, 2, 30, 40))
    faces.add_without_face("c.mp4", 7)
    faces.add_face("c.mp4", 8, 0, None)
    faces.add_probabilities(np.array([[0.25, 0.75]], np.float32))
    return faces


def test_what_is_not_known_is_empty(tmp_path: Path) -> None:
    faces = three()
    faces.add_probabilities(np.array([[0.5, 0.5]], np.float32))
    faces.write(tmp_path / "t.CSV", "f" * 16)
    assert (tmp_path / "t.CSV").read_text() == (
        '"path","frame","face","x0","y0","x1","y1","happy","sad","label","confidence"\n'
        '"a, b.png",,0,1,2,30,40,0.25,0.75,"sad",0.75\n'
        '"c.mp4",7,,,,,,,,,\n'
        '"c.mp4",8,0,,,,,0.5,0.5,"happy",0.5\n'
    )
    faces.write(tmp_path / "t.parquet", "f" * 16)
    assert pq.read_table(tmp_path / "t.parquet")["confidence"].to_pylist() == [0.75, None, 0.5]
    assert faces.counts() == {"sad": 1, "happy": 1} and faces.faces == 2 and len(faces) == 3


def test_ratings_are_columns_beside_the_expressions_or_alone() -> None:
    for names in (NAMES, ()):
        faces = LabelledFaces(names, rates_affect=True)
        faces.add_face("a.png", None, 0, None)
        faces.add_without_face("b.png", None)
        faces.add_probabilities(np.full((1, len(names)), 0.5, np.float32), np.array([[0.25, -0.5]], np.float32))
        found = faces.table()
        assert found.column_names[7:] == [*names, *(["label", "confidence"] if names else []), "valence", "arousal"]
        assert found["valence"].to_pylist() == [0.25, None] and found["arousal"].to_pylist() == [-0.5, None]
        assert faces.counts() == ({"happy": 1} if names else {})
        with pytest.raises(ValueError, match=r"found ratings none, expected \(1, 2\)"):
            faces.add_probabilities(np.full((1, len(names)), 0.5, np.float32))


def test_a_face_without_probabilities_is_refused_or_dropped() -> None:
    faces = three()
    with pytest.raises(ValueError, match="found 1 probabilities of 2 faces"):
        faces.table()
    faces.keep_whole_rows()
    assert faces.table()["path"].to_pylist() == ["a, b.png", "c.mp4"]
    assert LabelledFaces(NAMES).table().num_rows == 0


def test_a_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    check_out(tmp_path / "new" / "deeper" / "t.csv", overwrite=False)
    assert list(tmp_path.iterdir()) == []
