"""Names of action units, and finding the row of a picture by its name."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.au_tables.au_table import NamedRows, action_unit_of

NAMES = ("AU1", "AU12")


def rows(*ids: str) -> NamedRows:
    values = np.linspace(0, 1, 2 * len(ids), dtype=np.float32).reshape(-1, 2)
    return NamedRows("a.csv", NAMES, ids, values)


@pytest.mark.parametrize(
    ("column", "name"),
    [
        *(("AU1", "AU1"), (" AU01", "AU1"), ("au_12", "AU12"), ("AU 06", "AU6"), ("AUL12", "AUL12"), ("aur_4", "AUR4")),
        *(("AU01_r", None), ("AU", None), ("AU0", None), ("Aura1", None), ("confidence", None)),
    ],
)
def test_columns_by_name(column: str, name: str | None) -> None:
    assert action_unit_of(column) == name


@pytest.mark.parametrize("known", ["train/happy/7.jpg", "train/happy/7", "7.png", "7", "/data/faces/7.jpg"])
def test_a_picture_is_found_by_id_by_path_and_by_file_name(known: str) -> None:
    found = rows("other", known).read(["train/happy/7.jpg", "train/happy/8.jpg"])
    np.testing.assert_allclose(found, [[2 / 3, 1], [np.nan, np.nan]], rtol=1e-6)
    assert found.dtype == np.float32


def test_the_whole_name_comes_first() -> None:
    table = rows("train/happy/7.jpg", "train/sad/7.jpg")
    np.testing.assert_allclose(table.read(["train/sad/7.jpg"]), [[2 / 3, 1]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"a\.csv: found several rows for 'val/sad/7\.jpg', which differ in folder"):
        table.read(["val/sad/7.jpg"])


def test_paths_below_another_folder_are_found_by_their_end() -> None:
    table = rows("/home/me/faces/train/happy/7.jpg", "/home/me/faces/train/sad/7.jpg", "clip/9.jpg", "D:\\f\\x\\8.jpg")
    expected = np.linspace(0, 1, 8, dtype=np.float32).reshape(-1, 2)
    for name, row in (
        ("train/sad/7.jpg", 1),
        ("sad/7", 1),
        ("train/happy/7.png", 0),
        ("val/clip/9", 2),
        ("x/8.jpg", 3),
    ):
        np.testing.assert_array_equal(table.read([name]), expected[row : row + 1])
    with pytest.raises(ValueError, match=r"found several rows for 'test/sad/7\.jpg'"):
        table.read(["test/sad/7.jpg"])  # neither is the end of the other


def test_points_in_names() -> None:
    table = rows("faces/photo.1", "faces/photo.2")
    np.testing.assert_allclose(
        table.read(["faces/photo.2.jpg", "faces/photo.1.jpg"]), [[2 / 3, 1], [0, 1 / 3]], rtol=1e-6
    )


def test_two_pictures_of_one_row_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found one row for 'train/sad/7\.jpg' and 'train/happy/7\.jpg'"):
        rows("7").read(["train/sad/7.jpg", "x", "train/happy/7.jpg"])


def test_no_picture_is_found() -> None:
    expected = r"a\.csv: found none of 2 pictures by name \(its first is 'a', that of the data 'fer2013-0'\)"
    with pytest.raises(ValueError, match=expected):
        rows("a", "b").read(["fer2013-0", "fer2013-1"])


def test_tables_that_say_things_twice_or_out_of_scale() -> None:
    with pytest.raises(ValueError, match="found picture 'a' 2 times, expected it once"):
        rows("a", "b", "a")
    with pytest.raises(ValueError, match="found action unit 'AU1' 2 times, expected it once"):
        NamedRows("a.csv", ("AU1", "AU1"), ["a"], np.zeros((1, 2), dtype=np.float32))
    with pytest.raises(ValueError, match=r"AU12 of 'a' is 1\.5 \(and 0 more\), expected a number in \[0, 1\]"):
        NamedRows("a.csv", NAMES, ["a"], np.array([[np.nan, 1.5]], dtype=np.float32))
    with pytest.raises(ValueError, match=r"a\.csv: found no row, expected action units of at least one picture"):
        rows()
