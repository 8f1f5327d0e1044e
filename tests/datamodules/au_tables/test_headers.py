"""Every form in which tools write action units: known by its header, read by name, in whatever order of columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.au_tables.au_table import NamedRows
from datamodules.au_tables.settings import AUTableSettings
from tests.fixtures.au_table_headers import FORMS, HEADERS, cells_of, expected_row, values_of, write_csv

OWN_FILES = ("openface 1", "openface 2 video", "openface 2 stills", "openface 2 -aus", "libreface picture")
"""Forms without names of pictures: a file is called as its picture."""


def write(folder: Path, form: str, order: list[int] | None = None, separator: str = ",", pad: str = "") -> Path:
    """Writes two pictures, a.jpg and b.jpg, columns in this order; returns what ``path`` is to be."""
    order = list(range(len(HEADERS[form]))) if order is None else order
    header = [pad + HEADERS[form][place] + pad for place in order]
    rows = {name: cells_of(form, f"{name}.jpg", values_of(form, seed)) for name, seed in (("a", 1), ("b", 2))}
    rows = {name: [pad + cells[place] + pad for place in order] for name, cells in rows.items()}
    if form in OWN_FILES or form == "libreface video":  # a video of one frame is a picture
        for name, cells in rows.items():
            write_csv(folder / f"{name}.csv", header, cells, separator=separator)
        return folder
    return write_csv(folder / "all.csv", header, *rows.values(), separator=separator)


def opened(path: Path, **settings: str) -> NamedRows:
    table = AUTableSettings(str(path), **settings).open()
    assert isinstance(table, NamedRows)
    return table


def read(table: NamedRows, name: str) -> dict[str, np.float32]:
    return dict(zip(table.names, table.read([name])[0], strict=True))


@pytest.mark.parametrize("form", HEADERS)
def test_exact_values_and_what_they_are(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        table = opened(write(tmp_path / "t", form))
    written, source = FORMS[form], table.source
    assert (source.format, source.tool, source.detected) == (written.format, written.tool, True)
    assert f"{written.tool} (recognised)" in caplog.text
    assert table.names == (*written.intensity, *written.presence) and source.not_read == ()
    assert source.presence_only == tuple(written.presence)
    assert {c.name: c.column for c in source.columns} == {**written.intensity, **written.presence}
    assert {c.scale.highest for c in source.columns if c.name in written.intensity} == {written.highest}
    for name, seed in (("b", 2), ("a", 1)):
        expected = expected_row(form, values_of(form, seed))
        assert read(table, f"{name}.jpg") == expected
        assert len(set(expected.values())) > len(expected) // 2  # a shifted column would show


@pytest.mark.parametrize("form", HEADERS)
def test_a_permuted_or_padded_table_never_shifts_a_column(tmp_path: Path, form: str) -> None:
    places = len(HEADERS[form])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(places).tolist()
        pad, separator = ("", " ", "  ")[seed], (",", ", ", ",")[seed]
        table = opened(write(tmp_path / str(seed), form, order, separator, pad))
        assert table.source.format == FORMS[form].format
        for name, row in (("a", 1), ("b", 2)):
            assert read(table, f"{name}.jpg") == expected_row(form, values_of(form, row))


def test_files_of_one_folder_may_have_other_orders(tmp_path: Path) -> None:
    form = "openface 2 stills"
    write(tmp_path, form)
    header, cells = HEADERS[form][::-1], cells_of(form, "", values_of(form, 3))[::-1]
    write_csv(tmp_path / "c.csv", header, cells)
    table = opened(tmp_path)
    for name, seed in (("a", 1), ("c", 3)):
        assert read(table, name) == expected_row(form, values_of(form, seed))


@pytest.mark.parametrize("form", HEADERS)
@pytest.mark.parametrize("change", ["cut", "longer", "cut header"])
def test_a_truncated_row_is_refused_with_its_line(tmp_path: Path, form: str, change: str) -> None:
    path = write(tmp_path / "t", form)
    file = path / "b.csv" if path.is_dir() else path
    *before, last = file.read_text().splitlines()
    cells, found = len(HEADERS[form]), len(HEADERS[form])
    if change == "cut header":
        before[0] = before[0].rpartition(",")[0]
        cells -= 1
        line = 2
    else:
        last = last.rpartition(",")[0] if change == "cut" else f"{last},0"
        found += -1 if change == "cut" else 1
        line = len(before) + 1
    file.write_text("\n".join([*before, last]) + "\n")
    with pytest.raises(ValueError, match=rf"\.csv line {line}: found {found} cells, expected {cells} as in the header"):
        opened(path)


@pytest.mark.parametrize("form", [form for form in HEADERS if form not in OWN_FILES and form != "libreface video"])
def test_the_same_in_parquet(tmp_path: Path, form: str) -> None:
    rows = [cells_of(form, f"{name}.jpg", values_of(form, seed)) for name, seed in (("a", 1), ("b", 2))]
    columns = {}
    for place, name in enumerate(HEADERS[form]):
        cells = [row[place] for row in rows]
        columns[f" {name}"] = cells if "jpg" in cells[0] else [float(cell) for cell in cells]
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = opened(tmp_path / "t.parquet")
    assert (table.source.format, table.source.tool) == (FORMS[form].format, FORMS[form].tool)
    for name, seed in (("a", 1), ("b", 2)):
        assert read(table, name) == expected_row(form, values_of(form, seed))


@pytest.mark.parametrize("form", HEADERS)
def test_the_format_can_be_said(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "t", form)
    table = opened(path, format=FORMS[form].format)
    assert not table.source.detected and table.source.tool == FORMS[form].tool


@pytest.mark.parametrize("form", [form for form in HEADERS if FORMS[form].format != "csv"])
def test_a_column_twice_is_an_error(tmp_path: Path, form: str) -> None:
    column = next(iter(FORMS[form].intensity.values()))
    again = column.replace("0", "00", 1) if "0" in column else column.upper()
    cells = cells_of(form, "a.jpg", values_of(form, 1))
    path = write_csv(tmp_path / "t" / "a.csv", [*HEADERS[form], again], [*cells, "0"])
    path = path.parent if form in OWN_FILES or form == "libreface video" else path
    with pytest.raises(
        ValueError, match=r"data\.au_table: .*a\.csv: found (action unit 'AU1' 2 times|column '.*' twice)"
    ):
        opened(path)
