"""py-feat's tables: several faces, pictures without one, videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.au_tables.pyfeat import PyFeatTable
from tests.fixtures.au_table_headers import HEADERS, cells_of, write_csv

FORMS = ("pyfeat 1", "pyfeat 2")


def face(form: str, name: str, score: str, intensity: str, frame: int = 0) -> list[str]:
    """One face, every action unit alike."""
    cells = cells_of(form, name, {}, frame)
    columns = {column: place for place, column in enumerate(HEADERS[form])}
    cells[columns["FaceScore"]] = score
    for column, place in columns.items():
        if column.startswith("AU"):
            cells[place] = intensity
    return cells


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("score", ["", "0.0", "nan"])
def test_a_picture_without_a_face_is_unknown(tmp_path: Path, form: str, score: str) -> None:
    rows = [face(form, "/data/a.jpg", "0.9", "0.25"), face(form, "/data/b.jpg", score, "" if score != "0.0" else "0")]
    table = PyFeatTable(write_csv(tmp_path / "t.csv", HEADERS[form], *rows))
    assert table.has(["a.jpg", "b.jpg", "c.jpg"]).tolist() == [True, True, False]
    found = table.read(["a.jpg", "b.jpg"])
    assert (found[0] == 0.25).all() and np.isnan(found[1]).all()


@pytest.mark.parametrize("form", FORMS)
def test_of_several_faces_the_surest_counts(tmp_path: Path, form: str) -> None:
    rows = [face(form, "a.jpg", score, score) for score in ("0.5", "0.75", "0.25")]
    table = PyFeatTable(write_csv(tmp_path / "t.csv", HEADERS[form], *rows))
    assert (table.read(["a"]) == 0.75).all()
    with pytest.raises(ValueError, match=r"t\.csv line 5: found picture 'a\.jpg' twice"):
        PyFeatTable(write_csv(tmp_path / "t.csv", HEADERS[form], *rows, rows[0]))


def test_frames_of_a_video_have_names_by_a_template(tmp_path: Path) -> None:
    rows = [face("pyfeat 2", f"/v/{clip}.mp4", "0.9", f"0.{clip}{i}", i) for clip in (1, 2) for i in range(3)]
    path = write_csv(tmp_path / "t.csv", HEADERS["pyfeat 2"], *rows)
    with pytest.raises(ValueError, match=r"found several frames of a video.*data\.au_table\.id_template such as"):
        PyFeatTable(path)
    for template, name in (("{name}/{frame:03d}.jpg", "1/002"), ("{name}-{frame1}", "1-3"), ("{name}/{frame0}", "1/2")):
        np.testing.assert_allclose(PyFeatTable(path, None, template).read([name])[0], 0.12, rtol=1e-6)
    with pytest.raises(ValueError, match=r"found '\{row\}' in data\.au_table\.id_template and a column 'frame'"):
        PyFeatTable(path, None, "{row}")


def test_a_value_outside_its_scale(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"t\.csv line 2: found '1\.5' in column 'AU01', expected a number in \[0, 1\]"
    ):
        PyFeatTable(write_csv(tmp_path / "t.csv", HEADERS["pyfeat 1"], face("pyfeat 1", "a.jpg", "0.9", "1.5")))
