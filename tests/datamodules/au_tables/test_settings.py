"""Action units of a table in the data module: from the command line, for any reader, joined by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from datamodules.au_tables.csv_table import CsvTable
from datamodules.au_tables.settings import AU_TABLES, AUTableSettings
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.provenance import split_manifest
from synfer.faces.action_units import ACTION_UNITS
from tests.fixtures.tiny_data import TinyReader, tiny_table


def write(path: Path, *names: str, values: str = "0.25,1") -> str:
    path.write_text("sample_id,AU12,AU45\n" + "".join(f"{name},{values}\n" for name in names))
    return str(path)


def data(path: str, **settings: Any) -> ExpressionDataModule:
    reader = TinyReader(train=tiny_table(14), val=tiny_table(7, "val"), test=tiny_table(7, "test"))
    return ExpressionDataModule(reader, au_table=AUTableSettings(path), **settings)


EVERY = [f"{split}-{row}" for split, count in (("train", 14), ("val", 7)) for row in range(count)]


def test_rows_get_the_action_units_of_the_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = data(write(tmp_path / "a.csv", *EVERY[::-1]))
    with caplog.at_level("INFO"):
        module.setup("fit")
    for table in (module.train_table, module.val_table):
        assert table is not None and table.au is not None and table.au.shape == (len(table), 41)
        assert (table.au[:, ACTION_UNITS.index("AU12")] == 0.25).all()
        assert np.isnan(np.delete(table.au, ACTION_UNITS.index("AU12"), axis=1)).all()
    assert "1 action units of 14 of 14 train rows; left out AU45, which no model knows" in caplog.text


def test_rows_without_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = data(write(tmp_path / "a.csv", *(name for name in EVERY if name not in ("train-3", "train-5"))))
    with caplog.at_level("INFO"):
        module.setup("fit")
    assert module.train_table is not None and module.train_table.au is not None
    assert np.flatnonzero(np.isnan(module.train_table.au).all(1)).tolist() == [3, 5]
    assert "of 12 of 14 train rows; unknown for 2, the first of them 'train-3'" in caplog.text


def test_a_split_that_does_not_join_is_an_error(tmp_path: Path) -> None:
    expected = (
        r"data\.au_table: val split of 7 rows: .*a\.csv: found none of 7 pictures by name \(its first is 'train-0'"
    )
    with pytest.raises(ValueError, match=expected):
        data(write(tmp_path / "a.csv", *EVERY[:14])).setup("fit")
    with pytest.raises(ValueError, match=r"found no action unit of any of the 14 train rows"):
        data(write(tmp_path / "b.csv", *EVERY, values=",1")).setup("fit")
    (tmp_path / "c.csv").write_text("sample_id,AU45\ntrain-0,1\n")
    with pytest.raises(ValueError, match=r"data\.au_table: found action units AU45, expected some of AU1, AU2"):
        data(str(tmp_path / "c.csv")).setup("fit")


def test_a_split_that_is_only_compared_needs_none(tmp_path: Path) -> None:
    module = data(write(tmp_path / "a.csv", *EVERY), drop_duplicates=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.setup("fit")  # reads the test split, which the table does not know, for its duplicates


def test_a_damaged_table_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.au_table: .*a\.csv line 2: found 'x' in column 'AU12'"):
        data(write(tmp_path / "a.csv", "train-0", values="x,1")).setup("fit")


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.au_table\.path 'no': no such file or folder"):
        AUTableSettings("no")
    with pytest.raises(ValueError, match=r"data\.au_table\.format: found 'deepface', expected auto or one of csv, lib"):
        AUTableSettings(str(tmp_path), format="deepface")
    assert set(AU_TABLES) == {"csv", "openface", "pyfeat", "libreface", "opengraphau"}


@pytest.mark.parametrize("form", ["whole", "by key"])
def test_it_can_be_given_on_the_command_line(tmp_path: Path, form: str) -> None:
    parser = ArgumentParser(parser_mode="omegaconf+", exit_on_error=False)
    parser.add_class_arguments(ExpressionDataModule, "data", fail_untyped=False)
    reader = ["--data.reader=datamodules.readers.DrawnReader", "--data.reader.count={train: 14, val: 7}"]
    given = {
        "whole": [f"--data.au_table={{format: openface, path: {tmp_path}}}"],
        "by key": [f"--data.au_table.path={tmp_path}", "--data.au_table.format=openface"],
    }[form]
    made = parser.instantiate_classes(parser.parse_args([*reader, *given])).data
    assert made.au_table == AUTableSettings(str(tmp_path), "openface")


@pytest.mark.parametrize("form", ["whole", "by key"])
def test_a_template_can_be_given_on_the_command_line(tmp_path: Path, form: str) -> None:
    parser = ArgumentParser(parser_mode="omegaconf+", exit_on_error=False)
    parser.add_class_arguments(ExpressionDataModule, "data", fail_untyped=False)
    reader = ["--data.reader=datamodules.readers.DrawnReader", "--data.reader.count={train: 14, val: 7}"]
    given = {
        "whole": [f"--data.au_table={{path: {tmp_path}, id_template: '{{file}}/{{frame:05d}}.jpg'}}"],
        "by key": [f"--data.au_table.path={tmp_path}", "--data.au_table.id_template={file}/{frame:05d}.jpg"],
    }[form]
    parsed = parser.parse_args([*reader, *given])
    stored = parser.parse_string(parser.dump(parsed))  # as config.yaml in the run folder keeps it
    for settings in (parsed, stored):
        made = parser.instantiate_classes(settings).data
        assert made.au_table == AUTableSettings(str(tmp_path), id_template="{file}/{frame:05d}.jpg")


def test_where_they_come_from_is_kept_with_the_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{name},{min(i, 1)},0.9,2.5,1,1,0.1" for i, name in enumerate(EVERY) if name != "val-2"]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["image,success,confidence,AU12_r,AU12_c,AU28_c,AU12_d", *rows, "odd,1,0.9,1,1,1,0.1"]))
    module = data(str(path))
    with caplog.at_level("INFO"):
        module.setup("fit")
    assert module.train_table is not None and module.val_table is not None
    record = split_manifest(module.train_table)["action_units"]
    assert record == {
        **{"tool": "OpenFace 1, video", "format": "openface", "detected": True, "not_read": ["AU12_d"], "clipped": 0},
        "columns": {
            "AU12": {"column": "AU12_r", "kind": "intensity", "scale": [0, 5.0]},
            "AU28": {"column": "AU28_c", "kind": "presence", "scale": [0, 1.0]},
        },
        **{"known": 13, "without_row": 0, "without_face": 1},
    }
    assert json.loads(json.dumps(record)) == record
    assert split_manifest(module.val_table)["action_units"]["without_row"] == 1
    assert "unknown for 1, the first of them 'train-0' (0 have no row there, 1 a row without a face)" in caplog.text
    assert "unknown for 1, the first of them 'val-2' (1 have no row there, 0 a row without a face)" in caplog.text
    assert "1 rows there are of no picture read so far, the first of them 'odd'" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file"),
        (
            b"image,happy\nx,1\n",
            r"found no column of an action unit \(found image, happy\), expected names such as AU12",
        ),
        (b"image;AU1\nx;0\n", r"found columns separated by semicolons \('image;AU1…'\), expected commas"),
        (b"image\tAU1\nx\t0\n", r"found columns separated by tabs"),
        (b"\x80\x04abc", r"found a pickle, expected CSV \(UTF-8\) or Parquet"),
        (b"PAR1abc", r"found no Parquet \(.*\), expected a whole file"),
        (
            b"0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8\n",
            r"line 1: found no header and 8 numbers \('0.1,.*'\), expected names such as AU12",
        ),
        (b"happy/1.jpg,0.1\n", r"line 1: found no header and 1 numbers \('happy/1.jpg,0.1'\), expected names such"),
        ("image,AU1\nx,0\n".encode("utf-16"), r"found UTF-16 text, expected CSV \(UTF-8\) or Parquet"),
        (b'[{"AU1": 0.5}]', r"found JSON, expected CSV"),
        (b"PK\x03\x04abcdef", r"found no arrays of numbers"),
        (",".join(map(str, range(41))).encode(), r"line 1: found a header that counts the columns, expected none"),
        (b"," + ",".join(map(str, range(41))).encode(), r"line 1: found a header that counts the columns"),
        (
            b"image,AU1_r,au_2_intensity\nx,0,1\n",
            r"found columns of openface and of libreface, expected data\.au_table",
        ),
        (b"image,AU1_x\nx,0\n", r"found column 'AU1_x', expected names such as AU12"),
        (b'image,AU1\n"x,0\n', r"line 2: found broken CSV"),
        (b"image,AU1\n,0\n", r"line 2: found nothing in column 'image', expected the name of a picture"),
    ],
)
def test_files_that_are_no_table_of_a_known_form(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^data\.au_table: .*/a[: ].*{message}"):
        AUTableSettings(str(tmp_path / "a")).open()


def test_a_table_of_ones_own_takes_two_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AU_TABLES, "two", lambda path, column: CsvTable(path, column))
    path = write(tmp_path / "a.csv", "x")
    assert AUTableSettings(path, "two").open().names == ("AU12", "AU45")
    with pytest.raises(
        ValueError, match=r"data\.au_table: id_template: found '\{row\}', expected null for format 'two'"
    ):
        AUTableSettings(path, "two", id_template="{row}").open()
