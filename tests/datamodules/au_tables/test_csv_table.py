"""A plain CSV file of action units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.au_tables.csv_table import CsvTable

GOOD = "image,AU1,AU12,AUL12,source\na.jpg,0,0.5,,us\nb.jpg,1,-nan(ind),0.25,us\n"


def table(folder: Path, text: str, id_column: str | None = None) -> CsvTable:
    path = folder / "units.csv"
    path.write_text(text)
    return CsvTable(path, id_column)


def test_exact_rows(tmp_path: Path) -> None:
    read = table(tmp_path, GOOD)
    assert read.names == ("AU1", "AU12", "AUL12")
    nan = np.nan
    expected = np.array([[1, nan, 0.25], [0, 0.5, nan], [nan, nan, nan]], dtype=np.float32)
    np.testing.assert_array_equal(read.read(["b.jpg", "a.jpg", "c.jpg"]), expected)


def test_the_column_of_names_can_be_said(tmp_path: Path) -> None:
    text = "image,who,au_01\n1,a,0.5\n1,b,1\n"
    np.testing.assert_array_equal(table(tmp_path, text, "who").read(["b"]), np.array([[1]], dtype=np.float32))
    with pytest.raises(ValueError, match=r"found no column 'face' \(found image, who, au_01\), expected it"):
        table(tmp_path, text, "face")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file"),
        ("face,AU1\n1,0\n", r"found no column that names the pictures \(found face, AU1\)"),
        ("image,a\nx,0\n", r"found no column of an action unit \(found image, a\)"),
        ("image,AU01_r\nx,0\n", r"found column 'AU01_r', expected names such as AU12.*format=openface"),
        ("image,AU1,AU01\nx,0,0\n", "found action unit 'AU1' 2 times"),
        ("image,AU1,AU1\nx,0,0\n", "found column 'AU1' twice"),
        ("image,AU1\nx,0\nx,1\n", "line 3: found picture 'x' twice"),
        ("image,AU1\nx,much\n", r"line 2: found 'much' in column 'AU1', expected a number in \[0, 1\]"),
        ("image,AU1\nx,0\ny,-1\n", r"line 3: found '-1' in column 'AU1'"),
        ("image,AU1\nx,3.2\n", r"line 2: found '3\.2' in column 'AU1'"),
        ("image,AU1\nx,inf\n", r"line 2: found 'inf' in column 'AU1'"),
        ("image,AU1\nx,0,1\n", "line 2: found 3 cells, expected 2 as in the header"),
        ("image,AU1\n", "found no row"),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"units\.csv.*{message}"):
        table(tmp_path, text)
