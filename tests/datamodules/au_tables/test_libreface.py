"""LibreFace's tables: presence beside intensity, intensities outside their scale, videos with frames left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.au_tables.libreface import LibreFaceTable
from datamodules.au_tables.settings import AUTableSettings, detect_format
from tests.fixtures.au_table_headers import HEADERS, cells_of, write_csv


def video(path: Path, *rows: dict[str, float], frames: tuple[int, ...] = ()) -> Path:
    form = "libreface video"
    numbers = frames or tuple(range(len(rows)))
    lines = [cells_of(form, "", row, frame) for row, frame in zip(rows, numbers, strict=True)]
    return write_csv(path, HEADERS[form], *lines)


def value(table: LibreFaceTable, name: str, unit: str) -> float:
    return float(table.read([name])[0, table.names.index(unit)])


def test_intensity_wins_over_presence_and_they_are_never_mixed(tmp_path: Path) -> None:
    cells = {"au_12": 1.0, "au_12_intensity": 0.5, "au_7": 1.0, "au_25_intensity": 2.5}
    path = video(tmp_path / "clip.csv", cells)
    table = LibreFaceTable(path, None, "{file}/{frame:04d}.png")
    found = {unit: value(table, "clip/0000.png", unit) for unit in ("AU12", "AU7", "AU25", "AU10")}
    assert found == {"AU12": np.float32(0.1), "AU7": 1, "AU25": 0.5, "AU10": 0}
    assert table.source.presence_only == ("AU7", "AU10", "AU14", "AU23", "AU24")
    text = path.read_text().replace("0.5", "", 1)  # the intensity of AU12 is not known: its presence is no stand-in
    path.write_text(text)
    assert np.isnan(value(LibreFaceTable(path, None, "{frame}"), "0", "AU12"))


def test_a_little_outside_is_clipped_and_counted_and_far_outside_refused(tmp_path: Path) -> None:
    rows = [{"au_1_intensity": -0.031, "au_2_intensity": 5.4}, {"au_1_intensity": 5.0, "au_2_intensity": -1.0}]
    table = LibreFaceTable(video(tmp_path / "a.csv", *rows), None, "{frame}")
    assert [value(table, str(i), unit) for i in (0, 1) for unit in ("AU1", "AU2")] == [0, 1, 1, 0]
    assert table.source.clipped == 3 and "3 numbers a little outside their scale were clipped" in str(table.source)
    with pytest.raises(ValueError, match=r"line 2: found '62\.0' in column 'au_4_intensity', expected .* in \[-1, 6\]"):
        LibreFaceTable(video(tmp_path / "b.csv", {"au_4_intensity": 62.0}), None, "{frame}")
    with pytest.raises(ValueError, match=r"line 2: found '1\.5' in column 'au_7', expected a number in \[0, 1\]"):
        LibreFaceTable(video(tmp_path / "c.csv", {"au_7": 1.5}), None, "{frame}")


def test_frames_go_by_their_number_for_those_without_a_face_are_left_out(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.csv", *({"au_4_intensity": float(i)} for i in range(3)), frames=(0, 3, 4))
    for folder_or_file in (path, tmp_path):
        table = LibreFaceTable(folder_or_file, None, "{file}/{frame1:03d}.jpg")
        assert [value(table, f"clip/{name}.jpg", "AU4") for name in ("001", "004", "005")] == pytest.approx(
            [0, 0.2, 0.4]
        )
        assert not table.has(["clip/002.jpg"])[0] and np.isnan(table.read(["clip/002.jpg", "clip/001.jpg"])[0]).all()
    with pytest.raises(ValueError, match=r"found '\{row\}' .* a column 'frame_idx', expected '\{frame\}'"):
        LibreFaceTable(path, None, "{row}")
    with pytest.raises(ValueError, match=r"found several frames of a video"):
        LibreFaceTable(tmp_path)
    with pytest.raises(ValueError, match=r"line 3: found picture '0' twice"):
        LibreFaceTable(video(tmp_path / "d.csv", {}, {}, frames=(0, 0)), None, "{frame}")


def test_the_older_spelling(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["image", "AU_12", "AU_12_intensity"], ["x", "1", "2.5"])
    assert detect_format(path) == "libreface" and value(LibreFaceTable(path), "x", "AU12") == 0.5


def test_a_list_for_training_is_not_taken_for_numbers_from_0_to_1(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["image_path", "au1", "au2"], ["/d/1.png", "0", "1"], ["/d/2.png", "1", "1"])
    with pytest.raises(ValueError, match=r"found no number above 1 in the columns au1, …, expected .*format=csv"):
        AUTableSettings(str(path)).open()
    np.testing.assert_array_equal(AUTableSettings(str(path), "csv").open().read(["2"]), np.ones((1, 2)))


def test_another_tool_is_not_taken_for_it(tmp_path: Path) -> None:
    form = "pyfeat 1"
    path = write_csv(tmp_path / "a.csv", HEADERS[form], cells_of(form, "a.jpg", {}))
    with pytest.raises(
        ValueError, match=r"found none of LibreFace's columns \(found FaceRectX, .*expected LibreFace's"
    ):
        LibreFaceTable(path)
