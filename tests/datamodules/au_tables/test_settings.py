"""Action units of a table in the data module: from the command line, for any reader, joined by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from datamodules.au_tables.settings import AU_TABLES, AUTableSettings
from datamodules.expression_data_module import ExpressionDataModule
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
