"""Names of pictures from a template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.au_tables.csv_table import CsvTable
from datamodules.au_tables.openface import OpenFaceTable
from datamodules.au_tables.picture_names import PictureNames
from datamodules.au_tables.settings import AUTableSettings
from tests.fixtures.au_table_headers import write_csv


@pytest.mark.parametrize(
    "template", ["", "a.jpg", "{}", "{0}", "{rows}", "{row.real}", "{row[0]}", "{row", "{row:q}", "{file:d}", "row}"]
)
def test_templates_that_make_no_names(template: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^data\.au_table\.id_template: found '.*expected some of \{row\}, \{frame\},"
    ):
        AUTableSettings(str(tmp_path), id_template=template)


def test_names() -> None:
    names = PictureNames("{file}/{frame:05d}.jpg")
    assert names.of_frames and names.name(file="a/clip", frame=7) == "a/clip/00007.jpg"
    assert not PictureNames("fer2013-{row}").of_frames


def test_rows_by_number(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["AU1"], ["0.5"], ["0.25"], ["1"])
    table = CsvTable(path, None, "fer2013-{row}")
    np.testing.assert_array_equal(table.read(["fer2013-2", "fer2013-0", "fer2013-3"])[:2, 0], [1, 0.5])
    assert table.has(["fer2013-2", "fer2013-3"]).tolist() == [True, False]
    assert table.never_read() == ["fer2013-1"]


@pytest.mark.parametrize(
    ("header", "template", "message"),
    [
        (["AU1"], "{frame}", r"found no column frame \(found AU1\), expected one for the frame in data"),
        (["AU1"], "{name}", r"found no column for '\{name\}' in data\.au_table\.id_template"),
        (["AU1", "frame"], "{row}", r"found '\{row\}' in .* and a column 'frame', expected '\{frame\}'"),
        (["AU1", "frame"], "{frame1}", r"found '\{frame0\}' or '\{frame1\}' .* which frame is the first is not known"),
        (["frame", "AU1"], "{frame}", r"line 2: found '0\.5' in column 'frame', expected a whole number from 0"),
        (["AU1"], "{file}", r"line 3: found picture 't' twice"),
    ],
)
def test_tables_that_lack_a_part(tmp_path: Path, header: list[str], template: str, message: str) -> None:
    path = write_csv(tmp_path / "t.csv", header, ["0.5"] * len(header), ["1"] * len(header))
    with pytest.raises(ValueError, match=message):
        CsvTable(path, None, template)


def test_frames_of_videos_that_openface_has_seen(tmp_path: Path) -> None:
    header = ["frame", "face_id", "confidence", "success", "AU12_r"]
    write_csv(tmp_path / "one" / "x.csv", header, *([i, "0", "0.9", "1", i] for i in "123"))
    write_csv(tmp_path / "two.csv", header, ["1", "0", "0.5", "1", "4"], ["1", "1", "0.9", "1", "5"])
    table = OpenFaceTable(tmp_path, None, "{file}/{frame:03d}.png")
    found = table.read(["one/x/003.png", "two/001.png"])
    np.testing.assert_allclose(found[:, 0], [0.6, 1.0], rtol=1e-6)
    found = OpenFaceTable(tmp_path, None, "{file}/{frame0}.png").read(["one/x/2.png"])
    np.testing.assert_allclose(found[:, 0], [0.6], rtol=1e-6)
