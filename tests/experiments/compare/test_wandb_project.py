"""Runs of a W&B project, through an object shaped like ``wandb.Api``; what is wrong with a key is one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from wandb.apis.public.summary import HTTPSummary

from experiments.compare.checks import usable_runs
from experiments.compare.groups import best_of, compare
from experiments.compare.run_folders import read_run_folder
from experiments.compare.wandb_project import _last_and_best, read_wandb_project
from tests.fixtures.synthetic_runs import write_run

METRIC = "val/accuracy"
REFUSED = "the key ending in 'wxyz' (from WANDB_API_KEY) could not be used"


class FakeRun:
    """Has what the public API's Run has, as far as it is read: W&B's own summary, settings joined by slashes."""

    def __init__(self, folder: Path, run_id: str, ratio: float, seed: int, summary: dict[str, Any], state: str) -> None:
        self.id, self.name, self.state, self.job_type = run_id, f"run {run_id}", state, "fit"
        self.created_at = "2026-01-02T03:04:05Z"
        self.dir = str(folder / run_id)
        self.config = {
            "data/synthetic_ratio": ratio,
            "seed_everything": seed,
            "model/init_args/label_space": ["happy", "sad"],
            "_wandb": {"version": "x"},
        }
        self.summary = HTTPSummary(self, None, summary=summary)  # type: ignore[arg-type]
        self.scanned: list[list[str]] = []

    def scan_history(self, keys: list[str]) -> Iterator[dict[str, Any]]:
        self.scanned.append(keys)
        yield from ({"_step": 10, METRIC: 0.5}, {"_step": 20, METRIC: 0.8}, {"_step": 30, METRIC: "NaN"})


class FakeRuns(list[FakeRun]):
    upgraded = False

    def upgrade_to_full(self) -> None:
        self.upgraded = True


def project(folder: Path) -> FakeRuns:
    recall = {"val/recall/happy": 0.7, "val/recall/sad": 0.6, "pictures": {"_type": "images/separated"}}
    return FakeRuns(
        [
            FakeRun(folder, "a1", 0.0, 1, {METRIC: 0.6, **recall}, "finished"),
            FakeRun(folder, "a2", 0.0, 2, {METRIC: 0.62, **recall}, "finished"),
            FakeRun(folder, "b1", 0.5, 1, {METRIC: {"last": 0.65, "max": 0.7}, **recall}, "finished"),
            FakeRun(folder, "b2", 0.5, 2, {METRIC: {"last": 0.66, "best": 0.71, "min": 0.1}, **recall}, "finished"),
            FakeRun(folder, "c1", 0.5, 3, {METRIC: 0.1}, "crashed"),
        ]
    )


def test_reads_settings_metrics_and_states(tmp_path: Path) -> None:
    found = project(tmp_path)
    runs, warnings = read_wandb_project("entity/project", SimpleNamespace(runs=lambda path: found))
    assert not warnings and found.upgraded and len(runs) == 5
    usable, left_out = usable_runs(runs, METRIC)
    assert left_out == ["1 run not finished (crashed), left out: entity/project/c1"]
    result = compare(usable, METRIC)
    assert result.swept.keys == ("data.synthetic_ratio",) and result.control == {1: 0}
    assert result.difference[1].mean == pytest.approx(0.045) and result.difference[1].n == 2
    assert result.groups[0].best == {1: 0.8, 2: 0.8}  # of the history
    assert result.groups[1].best == {1: 0.7, 2: 0.71}  # of the summary, so the history is left alone
    assert [len(run.scanned) for run in found] == [1, 1, 0, 0, 0]
    assert list(result.groups[0].recall) == ["happy", "sad"]


def test_a_run_whose_folder_was_read_is_not_counted_twice(tmp_path: Path) -> None:
    runs, _ = read_wandb_project("e/p", SimpleNamespace(runs=lambda path: project(tmp_path)))
    folder = read_run_folder(write_run(tmp_path / "local", 0.0, 1, summary={"wandb_id": "a1"}))
    usable, _ = usable_runs([folder, *runs], METRIC)
    assert [run.name for run in usable] == [str(tmp_path / "local"), "e/p/a2", "e/p/b1", "e/p/b2"]


def test_an_unreadable_history_is_one_line(tmp_path: Path) -> None:
    def broken(keys: list[str]) -> Iterator[dict[str, Any]]:
        raise wandb.errors.CommError("lost\nconnection")

    found = project(tmp_path)
    found[0].scan_history = broken  # type: ignore[method-assign]
    runs, _ = read_wandb_project("e/p", SimpleNamespace(runs=lambda path: found))
    with pytest.raises(ValueError, match=r"^W&B run 'a1': history cannot be read \(lost connection\)$"):
        best_of(runs[0], METRIC)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (wandb.errors.AuthenticationError("Failed to verify\ncredentials"), REFUSED),
        (wandb.errors.CommError("HTTP 401: permission denied"), REFUSED),
        (ValueError("Could not find project entity/project"), "Could not find project entity/project"),
        (ConnectionError("no route"), "no route"),
    ],
)
def test_what_the_server_refuses_is_one_line(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0123456789" * 4 + "wxyz"
    monkeypatch.setenv("WANDB_API_KEY", key)

    def runs(path: str) -> None:
        raise error

    found, warnings = read_wandb_project("entity/project", SimpleNamespace(runs=runs))
    assert found == [] and len(warnings) == 1
    assert warnings[0].startswith("W&B project 'entity/project': ") and said in warnings[0]
    assert "\n" not in warnings[0] and key not in warnings[0]


def test_runs_read_before_the_connection_broke_are_kept(tmp_path: Path) -> None:
    def some() -> Iterator[FakeRun]:
        yield project(tmp_path)[0]
        raise wandb.errors.CommError("lost")

    runs, warnings = read_wandb_project("e/p", SimpleNamespace(runs=lambda path: some()))
    assert len(runs) == 1 and warnings == ["W&B project 'e/p': lost"]


def test_an_empty_project_is_named() -> None:
    assert read_wandb_project("e/p", SimpleNamespace(runs=lambda path: []))[1] == ["W&B project 'e/p': found no runs"]


def test_the_real_client_with_a_key_of_the_wrong_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "tooshort")
    monkeypatch.setenv("NETRC", os.devnull)
    runs, warnings = read_wandb_project("entity/project")  # refused before any request
    assert runs == [] and len(warnings) == 1
    assert "the key ending in 'hort' (from WANDB_API_KEY) could not be used" in warnings[0]


def test_best_and_last_as_train_py_writes_them() -> None:
    summary = {"val/accuracy": 0.5, "best/val/accuracy": 0.75, "last/val/accuracy": 0.5, "_step": 9}
    last, best = _last_and_best(summary)
    assert best == {"val/accuracy": 0.75}
    assert last == {"val/accuracy": 0.5, "_step": 9}
