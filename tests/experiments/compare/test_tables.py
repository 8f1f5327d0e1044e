"""The table as text and as CSV."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from experiments.compare.groups import compare
from experiments.compare.intervals import Interval
from experiments.compare.run_folders import read_run_folders
from experiments.compare.tables import show_difference, show_interval, text_table, write_csv
from tests.fixtures.synthetic_runs import write_run


def test_numbers() -> None:
    assert show_interval(Interval(0.6712, 0.0123, 3), 100) == "67.1 ± 1.2"
    assert show_interval(Interval(0.6712, None, 1), 100) == "67.1"
    assert show_interval(None, 100) == "–"
    assert show_interval(Interval(1.2345, 0.1, 3), 1) == "1.234 ± 0.100"
    assert show_interval(Interval(0.65, None, 2, is_withheld=True), 100) == "65.0 ± ?"
    assert show_interval(Interval(0.95, 0.1, 3, bounds=(0.0, 1.0)), 100) == "95.0 [85.0, 100.0]"
    assert show_difference(Interval(0.03, None, 2, is_withheld=True), 100) == "+3.0 ± ?"
    assert show_difference(Interval(0.03, 0.04, 3), 100) == "+3.0 [\u22121.0, +7.0]"


def test_text_and_csv_hold_the_same(tmp_path: Path) -> None:
    for ratio, gain in ((0.0, 0.0), (0.5, 0.02)):
        for seed in (1, 2):
            write_run(tmp_path / f"{ratio}-{seed}", ratio, seed, 0.6 + gain + 0.01 * seed + 0.001 * seed * ratio)
    runs, _ = read_run_folders([tmp_path])
    found = compare(runs, "val/accuracy")
    lines = text_table(found).splitlines()
    assert lines[0].split()[:2] == ["data.synthetic_ratio", "seeds"] and lines[1].endswith("control")
    assert lines[2].split()[0] == "0.5" and "+2.1 [+1.8, +2.4]" in lines[2]
    assert any(line.split()[1:3] == ["neutral", "happy"] for line in lines if line)

    write_csv(found, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        control, mixed = csv.DictReader(file)
    assert control["is_control"] == "True" and mixed["is_control"] == "False"
    assert mixed["seeds"] == "1 2" and control["difference_to_control_mean"] == ""
    assert float(mixed["difference_to_control_mean"]) == pytest.approx(0.02075)
    assert float(mixed["val/accuracy_last_mean"]) == pytest.approx(0.63575)
    assert float(mixed["recall_happy_mean"]) == pytest.approx(0.61575) and mixed["recall_happy_n"] == "2"
