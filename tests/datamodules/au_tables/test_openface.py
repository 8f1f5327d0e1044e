"""OpenFace's own files: the columns of 2.0 and 2.2, a file per picture and one for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.au_tables.openface import OpenFaceTable

INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
PRESENCES = (*INTENSITIES[:16], 28, 45)
BEFORE = [f"{kind}_{i}" for kind in ("eye_lmk_x", "x", "y") for i in range(3)] + ["pose_Tx", "pose_Rz", "p_scale"]
COLUMNS = [*BEFORE, *(f"AU{n:02d}_r" for n in INTENSITIES), *(f"AU{n:02d}_c" for n in PRESENCES)]
STILL = ["face", "confidence"]
VIDEO = ["frame", "face_id", "timestamp", "confidence", "success"]


def cells(intensity: float = 0.0, presence: int = 0) -> list[str]:
    """Every intensity the same, and every presence."""
    return [
        *["12.345"] * len(BEFORE),
        *[f"{intensity:.2f}"] * len(INTENSITIES),
        *[f"{presence:.2f}"] * len(PRESENCES),
    ]


def write(path: Path, header: list[str], *lines: list[str], blank: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(f",{blank}".join(words) for words in (header, *lines)) + "\n")
    return path


@pytest.mark.parametrize("blank", ["", " "])
def test_a_file_per_picture(tmp_path: Path, blank: str) -> None:
    header = [*STILL, *COLUMNS]
    write(tmp_path / "train/happy/7.csv", header, ["0", "0.95", *cells(2.5, 1)], blank=blank)
    write(tmp_path / "train/sad/7.csv", header, ["0", "0.95", *cells(5, 0)], blank=blank)
    table = OpenFaceTable(tmp_path)
    assert table.names == (*(f"AU{n}" for n in INTENSITIES), "AU28")
    found = table.read(["train/sad/7.jpg", "train/happy/7.jpg", "train/happy/8.jpg"])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], [1.0] * 17 + [0])
    np.testing.assert_array_equal(found[1], [0.5] * 17 + [1])
    assert np.isnan(found[2]).all()


def test_one_file_for_all_with_a_column_of_names(tmp_path: Path) -> None:
    path = write(
        tmp_path / "all.csv",
        ["filename", *VIDEO, *COLUMNS],
        ["a.jpg", "1", "0", "0.0", "0.98", "1", *cells(1)],
        ["b.jpg", "1", "0", "0.0", "0.02", "0", *cells(3)],
    )
    found = OpenFaceTable(path).read(["b", "a"])
    assert np.isnan(found[0]).all()  # no success
    np.testing.assert_allclose(found[1][:17], 0.2, rtol=1e-6)


def test_of_several_faces_the_surest_counts(tmp_path: Path) -> None:
    lines = (["0", "0.40", *cells(1)], ["1", "0.90", *cells(5)], ["2", "0.60", *cells(3)])
    write(tmp_path / "a.csv", [*STILL, *COLUMNS], *lines)
    assert OpenFaceTable(tmp_path).read(["a"])[0, 0] == 1


def test_older_lists_have_fewer_action_units(tmp_path: Path) -> None:
    header = ["frame", "timestamp", "confidence", "success", "AU01_r", "AU12_r", "AU01_c", "AU12_d"]
    write(tmp_path / "a.csv", header, ["1", "0", "1", "1", "2.5", "0", "1", "0.3"])
    table = OpenFaceTable(tmp_path)
    assert table.names == ("AU1", "AU12")
    np.testing.assert_array_equal(table.read(["a"]), np.array([[0.5, 0]], dtype=np.float32))


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        (["face", "AU01_c"], [["0", "1"]], r"found no column AU01_r or alike \(found face, AU01_c\).*-aus"),
        (
            ["face", "AU01_r"],
            [["0", "much"]],
            r"line 2: found 'much' in column 'AU01_r', expected .* in \[0, 5\]",
        ),
        (["face", "AU01_r"], [["0", "5.2"]], r"line 2: found '5\.2' in column 'AU01_r'"),
        (
            ["face", "AU01_r", "AU28_c"],
            [["0", "5", "2"]],
            r"found '2' in column 'AU28_c', expected .* in \[0, 1\]",
        ),
        (["face", "AU01_r"], [["0", "1"], ["0", "2"]], "found picture 'a' twice"),
        (["face", "AU01_r", " AU01_r"], [["0", "1", "2"]], "found column 'AU01_r' twice"),
        (["frame", "AU01_r"], [["1", "1"], ["2", "2"]], "found several frames of a video, expected a file per picture"),
        (["face", "AU01_r"], [["0"]], "line 2: found 1 cells, expected 2"),
        (["face", "AU01_r"], [], "found no row"),
    ],
)
def test_damaged_files(tmp_path: Path, header: list[str], lines: list[list[str]], message: str) -> None:
    write(tmp_path / "a.csv", header, *lines)
    with pytest.raises(ValueError, match=message):
        OpenFaceTable(tmp_path)


def test_one_file_needs_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [*STILL, "AU01_r"], ["0", "1", "1"])
    with pytest.raises(ValueError, match=r"found no column that names the pictures .*or a folder with a file per"):
        OpenFaceTable(path)


def test_files_of_two_runs(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ["face", "AU01_r"], ["0", "1"])
    write(tmp_path / "b.csv", ["face", "AU01_r", "AU02_r"], ["0", "1", "1"])
    with pytest.raises(ValueError, match=r"b\.csv: found other action units than in .*a\.csv \(AU2\)"):
        OpenFaceTable(tmp_path)


def test_an_empty_folder_and_a_picture_in_two_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found no \*\.csv in the folder"):
        OpenFaceTable(tmp_path)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.csv", ["image", "AU01_r"], ["x.jpg", "1"])
    with pytest.raises(ValueError, match=r"found picture 'x\.jpg' twice"):
        OpenFaceTable(tmp_path)


def test_a_still_without_a_face_is_no_neutral_face(tmp_path: Path) -> None:
    header = [*STILL, *COLUMNS]
    write(tmp_path / "found.csv", header, ["0", "0.95", *cells(0, 0)])
    write(tmp_path / "lost.csv", header, ["0", "0", *(["0"] * len(COLUMNS))])
    table = OpenFaceTable(tmp_path)
    assert table.has(["found", "lost", "other"]).tolist() == [True, True, False]
    found = table.read(["found", "lost"])
    assert (found[0] == 0).all() and np.isnan(found[1]).all()


def test_zeros_are_unknown_where_nothing_says_that_there_was_a_face(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["image", "AU01_r", "AU02_r"], ["a", "0", "0"], ["b", "0", "0.5"])
    found = OpenFaceTable(path).read(["a", "b"])
    assert np.isnan(found[0]).all() and found[1].tolist() == [0, np.float32(0.1)]


def test_a_face_that_was_seen_comes_before_a_surer_one_that_was_not(tmp_path: Path) -> None:
    lines = (["1", "0", "0.9", "0", "3"], ["1", "1", "0.6", "1", "2.5"])
    write(tmp_path / "a.csv", ["frame", "face_id", "confidence", "success", "AU01_r"], *lines)
    assert OpenFaceTable(tmp_path).read(["a"])[0, 0] == 0.5


def test_columns_of_forks_are_named_and_not_read(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ["face", "confidence", "AU01_r", "AU01_d", "AUdio"], ["0", "1", "5", "0.3", "7"])
    table = OpenFaceTable(tmp_path)
    assert table.names == ("AU1",) and table.source.not_read == ("AU01_d",)
    assert "not read AU01_d" in str(table.source)


def test_a_picture_twice_without_numbers_of_faces(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["image", "confidence", "AU01_r"], ["x", "0.5", "1"], ["x", "0.9", "2"])
    with pytest.raises(ValueError, match=r"a\.csv line 3: found picture 'x' twice"):
        OpenFaceTable(path)
