"""Runs one by one, their tests, and curves of their training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.compare.charts import draw_charts
from experiments.compare.groups import Comparison, compare
from experiments.compare.run_folders import read_run_folders
from experiments.compare.run_rows import _wandb_address, metrics_of_tests, run_rows
from experiments.compare.sample_strips import sample_strips
from tests.fixtures.synthetic_runs import write_run

DRAWN = {"data__reader": {"class_path": "datamodules.readers.DrawnReader"}}


def compared(folder: Path) -> Comparison:
    runs, _ = read_run_folders([folder])
    return compare(runs, "val/accuracy")


def test_times_links_and_commands(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a b"
    write_run(folder, 0.0, 3, 0.654321, summary={"wall_s": 3725.4, "started": "2026-01-02T03:04:05+00:00"})
    (row,) = run_rows(compared(tmp_path / "runs"), tmp_path / "report")
    assert row.link == "../runs/a%20b/" and row.took == "1:02:05" and row.started == "2026-01-02 03:04"
    assert row.command == f"python train.py fit --config '{folder}/config.yaml'"
    assert row.seed == "3" and row.last == "65.43" and row.more == ()


def test_address_of_a_run_on_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert _wandb_address("lab/faces/x1") == "https://wandb.ai/lab/faces/runs/x1"
    assert _wandb_address("faces/x1") == ""  # of the default entity, which only the server knows


def test_tests_are_sorted_rounded_and_averaged(tmp_path: Path) -> None:
    for seed, accuracy in ((1, 0.5), (2, 0.6)):
        metrics = {"val/accuracy": 0.7, "test/ece": 0.0123456, "test/accuracy": accuracy, "test/recall/fear": 0.1}
        write_run(tmp_path / f"a{seed}", 0.0, seed, summary={"metrics": {**metrics, "test/frechet": 12.34567}})
    write_run(tmp_path / "untested", 0.5, 1)
    labels, rows = metrics_of_tests(compared(tmp_path).groups)
    assert labels == ["synthetic_ratio 0.0"] or labels == ["synthetic_ratio 0"]
    assert rows == [("accuracy in %", ["55"]), ("ece in %", ["1.235"]), ("frechet", ["12.35"])]


@pytest.mark.parametrize("drawn", [True, False])
def test_real_faces_do_not_go_into_a_report(tmp_path: Path, drawn: bool) -> None:
    reader = "DrawnReader" if drawn else "ImageFolderReader"
    folder = write_run(tmp_path / "runs" / "a", data__reader={"class_path": f"datamodules.readers.{reader}"})
    (folder / "misclassified").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "misclassified" / "val.png")
    comparison = compared(tmp_path / "runs")
    strips, _ = sample_strips(comparison.groups)
    assert [name for strip in strips for name, *_ in strip.pictures] == (["misclassified, val"] if drawn else [])
    (row,) = run_rows(comparison, tmp_path)
    assert row.more == (("misclassified, val", "runs/a/misclassified/val.png"),)  # a link stays on the machine


def test_a_curve_of_each_training(tmp_path: Path) -> None:
    for ratio in (0.0, 0.5):
        for seed in (1, 2):
            write_run(tmp_path / "runs" / f"{ratio}-{seed}", ratio, seed, history=[0.2, 0.4, 0.5 + seed / 50])
    charts = {chart.name: chart for chart in draw_charts(compared(tmp_path / "runs"), tmp_path)}
    assert charts["learning"].title == "val/accuracy while training" and (tmp_path / "learning.png").is_file()
    assert "runs." not in charts["learning"].note  # all of them


def test_one_validation_is_no_curve(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", history=[0.5])
    assert "learning" not in {chart.name for chart in draw_charts(compared(tmp_path / "runs"), tmp_path)}
