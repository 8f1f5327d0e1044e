"""OpenGraphAU's vectors: 41 numbers in its order and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.au_tables.opengraphau import OpenGraphAUTable
from datamodules.au_tables.settings import AUTableSettings, detect_format

MAIN = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 32, 38, 39)
SIDES = [f"AU{side}{n}" for n in (1, 2, 4, 6, 10, 12, 14) for side in "LR"]
A, B = (np.linspace(start, 1, 41, dtype=np.float32) for start in (0, 0.5))


def text(*vectors: np.ndarray, names: tuple[str, ...] = (), separator: str = ",") -> str:
    rows = [separator.join(map(repr, vector.tolist())) for vector in vectors]
    return "".join(
        f"{name}{row}\n" for name, row in zip([f"{n}," for n in names] or [""] * len(rows), rows, strict=True)
    )


def saved(folder: Path, form: str) -> tuple[Path, str | None]:
    """Returns a table of the pictures p-0 (A) and p-1 (B), and a template where it needs one."""
    folder.mkdir()
    path = folder / {"npz": "t.npz", "npz table": "t.npz", "npy table": "t.npy"}.get(form, "t.csv")
    if form == "a file each":
        for name, vector in (("p-0", A), ("p-1", B)):
            np.save(folder / f"{name}.npy", vector)
        return folder, None
    if form == "a text each":
        for name, vector in (("p-0", A), ("p-1", B)):
            (folder / f"{name}.csv").write_text(text(vector))
        return folder, None
    if form == "npz":
        np.savez(path, **{"p-0": A, "p-1": B})
    elif form == "npz table":
        np.savez(path, au=np.stack([A, B]), names=np.array(["p-0", "p-1"]))
    elif form == "npy table":
        np.save(path, np.stack([A, B]))
    elif form == "named lines":
        path.write_text(text(A, B, names=("p-0.jpg", "p-1.jpg")))
    else:
        path.write_text(text(A, B, separator=" " if form == "blanks" else ","))
    return path, "p-{row}" if form in ("npy table", "lines", "blanks") else None


FORMS = ("a file each", "a text each", "npz", "npz table", "npy table", "named lines", "lines", "blanks")


@pytest.mark.parametrize("form", FORMS)
def test_exact_values_in_the_documented_order(tmp_path: Path, form: str) -> None:
    path, template = saved(tmp_path / "t", form)
    assert detect_format(path) == "opengraphau"
    table = AUTableSettings(str(path), id_template=template).open()
    assert isinstance(table, OpenGraphAUTable)
    assert table.names == (*(f"AU{n}" for n in MAIN), *SIDES)
    np.testing.assert_array_equal(table.read(["p-1.jpg", "p-0.jpg"]), np.stack([B, A]))
    assert table.source.tool == "OpenGraphAU" and table.source.names_of("probability") == table.names


@pytest.mark.parametrize("width", [8, 17, 27, 40, 43])
def test_another_width_is_refused(tmp_path: Path, width: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros(width, dtype=np.float32))
    (tmp_path / "b.csv").write_text(text(A) + text(np.zeros(width)))
    np.savez(tmp_path / "c.npz", a=A, b=np.zeros(width))
    for name, where in (("a.npy", ""), ("b.csv", " line 2"), ("c.npz", " 'b'")):
        with pytest.raises(ValueError, match=rf"{name}{where}: found {width} numbers, expected the 41 numbers of Open"):
            OpenGraphAUTable(tmp_path / name, None, "{row}")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ({"a": A * 100}, r"'a': AU2 is 2\.5 \(and 39 more\), expected numbers in \[0, 1\] \(.* times 100\)"),
        ({"a": -A}, r"AU2 is -0\.025"),
        ({"a": np.zeros((2, 2, 41))}, r"found an array \(2, 2, 41\)"),
        ({"a": np.array([{}], dtype=object)}, r"found no arrays of numbers"),
        ({"a": np.array(["x"])}, r"found 'a' of <U1"),
        (
            {"a": np.zeros((2, 41)), "b": np.array(["x"])},
            r"found a \(2, 41\), b \(1,\), expected one array \(N, 41\) and",
        ),
        ({"a": np.stack([A, B])}, r"found 2 vectors without names, expected one per file, or .*id_template"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, array: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **array)
    with pytest.raises(ValueError, match=rf"a\.npz.*{message}"):
        OpenGraphAUTable(tmp_path / "a.npz")


def test_settings_that_have_no_meaning_here(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "t", "npz")
    with pytest.raises(ValueError, match=r"id_column: found 'image' for vectors without columns, expected null"):
        OpenGraphAUTable(path, "image")
    with pytest.raises(
        ValueError, match=r"id_template: found '\{frame\}' for vectors without columns, expected \{row\}"
    ):
        OpenGraphAUTable(path, None, "{frame}")
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"cut\.npz: found no arrays of numbers"):
        OpenGraphAUTable(tmp_path / "cut.npz")


def test_a_face_that_was_not_found_is_unknown(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.full(41, np.nan), b=B)
    assert np.isnan(OpenGraphAUTable(tmp_path / "a.npz").read(["a"])).all()


def test_a_spreadsheet_is_no_npz(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as file:
        file.writestr("xl/workbook.xml", "x")
    with pytest.raises(
        ValueError, match=r"a\.xlsx: found a zip file or a spreadsheet, expected arrays \(\.npz\), or CSV"
    ):
        AUTableSettings(str(tmp_path / "a.xlsx")).open()
