"""The last lines of a run, and that what they say can be typed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from callbacks.recording.closing_lines import closing_lines, program, short_path
from synfer.runs.run_format import write_summary
from tests.docs.documented_commands import Command
from tests.docs.program_parsers import complaints

DONE = {
    "task": "fit",
    "status": "finished",
    "reason": "epochs",
    "complete": True,
    "steps": 504,
    "wall_s": 245.2,
    "metrics": {"train/loss": 1.2, "val/accuracy": 0.71234, "val/ece": 0.1},
    "best": {"val/accuracy": 0.731},
}


def written(folder: Path, **changes: Any) -> Path:
    write_summary(folder, {**DONE, **changes})
    return folder


@pytest.fixture(autouse=True)
def _typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "fit"])


def test_main_figure_folder_and_next_command(tmp_path: Path) -> None:
    first, second = closing_lines(written(tmp_path), "fit")
    folder = short_path(tmp_path)
    assert first == (f"finished after 504 steps in 4:05, val/accuracy 0.7123 (its best: 0.7310) → {folder}")
    assert second == (
        f"next: python train.py test --config {folder}/config.yaml --ckpt_path {folder} --run_dir {folder}"
    )


def test_a_stopped_run_says_how_it_goes_on(tmp_path: Path) -> None:
    stopped = {"status": "interrupted", "reason": "SIGINT", "complete": False}
    assert closing_lines(written(tmp_path, **stopped), "fit") == []  # nothing was saved
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (line,) = closing_lines(tmp_path, "fit")
    assert line.startswith("go on: python train.py fit --config ")
    assert f"--ckpt_path {short_path(tmp_path)}/checkpoints/last.ckpt" in line


@pytest.mark.parametrize("makes_faces", [False, True])
def test_what_is_to_be_typed_is_known(tmp_path: Path, makes_faces: bool) -> None:
    (line,) = closing_lines(written(tmp_path), "fit", makes_faces)[1:]
    words = shlex.split(line.removeprefix("next: ").replace(short_path(tmp_path), "runs/NAME"))
    assert words[2] == ("predict" if makes_faces else "test") and "runs/NAME/config.yaml" in words
    assert not complaints([Command("closing lines", 1, tuple(words))])


def test_a_model_without_a_test_is_not_sent_there(tmp_path: Path) -> None:
    assert len(closing_lines(written(tmp_path), "fit", has_test=False)) == 1


def test_nothing_is_said_of_what_failed_or_is_not_there(tmp_path: Path) -> None:
    assert closing_lines(tmp_path, "fit") == []
    assert closing_lines(written(tmp_path, status="failed", complete=False), "fit") == []


def test_a_test_leads_to_the_comparison(tmp_path: Path) -> None:
    lines = closing_lines(written(tmp_path, test={"status": "finished"}), "test")
    assert lines[1] == f"next: python compare.py {Path(short_path(tmp_path)).parent}"


def test_the_command_is_the_one_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert program("test") == "python train.py test" and program("compare") == "python compare.py"
    for typed in ("/venv/bin/synfer", "/project/synfer/__main__.py"):
        monkeypatch.setattr(sys, "argv", [typed, "fit"])
        assert program("test") == "synfer test" and program("compare") == "synfer compare"


def test_paths_below_here_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "runs" / "a") == "runs/a"
    assert short_path(tmp_path.parent / "other") == str(tmp_path.parent / "other")
