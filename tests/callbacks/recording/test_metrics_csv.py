"""metrics.csv keeps every row, whatever is logged when."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from callbacks.recording.metrics_csv import MetricsCsv


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("flush_rows", [1, 2, 100])
def test_new_names_get_a_column(tmp_path: Path, flush_rows: int) -> None:
    logger = MetricsCsv(tmp_path / "run", flush_rows=flush_rows)
    logger.log_metrics({"epoch": 0, "train/loss": torch.tensor(0.5)}, step=1)  # type: ignore[dict-item]
    logger.log_metrics({"epoch": 0, "val/accuracy": 0.25}, step=1)
    logger.log_metrics({"epoch": 1, "train/loss": 0.125}, step=2)
    logger.finalize("success")
    rows = rows_of(tmp_path / "run")
    assert [row["train/loss"] for row in rows] == ["0.5", "", "0.125"]
    assert [row["val/accuracy"] for row in rows] == ["", "0.25", ""]
    assert [row["step"] for row in rows] == ["1", "1", "2"]


@pytest.mark.parametrize(("append", "kept"), [(True, 2), (False, 1)])
def test_continued_run_appends(tmp_path: Path, append: bool, kept: int) -> None:
    for step, metric in enumerate(("train/loss", "test/accuracy")):
        logger = MetricsCsv(tmp_path, append=append)
        logger.log_metrics({metric: 0.5}, step=step)
        logger.finalize("success")
    assert len(rows_of(tmp_path)) == kept
    assert rows_of(tmp_path)[-1]["test/accuracy"] == "0.5"


def test_nothing_logged_nothing_written(tmp_path: Path) -> None:
    MetricsCsv(tmp_path / "run").finalize("success")
    assert not (tmp_path / "run").exists()


def test_what_a_kill_has_left_of_a_line_is_cut_off_and_steps_taken_again_are_not_logged_twice(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,0,1.0\n0,1,0.5\n0,2,0.25\n0,3,0.12")
    log = MetricsCsv(tmp_path, append=True, before_step=2, flush_rows=1)
    log.log_metrics({"epoch": 0, "train/loss": 0.75}, step=2)
    log.log_metrics({"epoch": 0, "val/accuracy": 0.5}, step=3)  # a new name has the file written anew
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [(int(row["step"]), row["train/loss"], row["val/accuracy"]) for row in rows] == [
        (0, "1.0", ""),
        (1, "0.5", ""),
        (2, "0.75", ""),
        (3, "", "0.5"),
    ]


def test_a_line_with_other_columns_is_left_out_with_a_word(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,0,1.0\n0,1,0.5,7,8\n0,2,0.25\n")
    log = MetricsCsv(tmp_path, append=True)
    log.log_metrics({"epoch": 0, "train/loss": 0.75}, step=3)
    with pytest.warns(UserWarning, match="line 3 has not the columns of the first one"):
        log.save()
    assert [row["step"] for row in csv.DictReader((tmp_path / "metrics.csv").open())] == ["0", "2", "3"]
