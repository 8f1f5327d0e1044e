"""Two runs do not share a run folder."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import train
from callbacks.recording.run_folder_lock import RunFolderLock
from synfer.foundation.folder_lock import RanksLock


def test_a_second_run_is_refused(
    tmp_path: Path, tiny_run: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RanksLock.take, "__defaults__", (0.1,))  # seconds of patience
    run = tmp_path / "run"
    command = ["fit", *tiny_run, f"--run_dir={run}", "--trainer.max_epochs=1"]
    first = RanksLock(run / "run.lock")
    for take in (lambda: first.take(), first.join):  # a run, and a rank that outlived its run
        take()
        with pytest.raises(SystemExit) as ended:
            train.main(command)
        error = capsys.readouterr().err
        lines = [line for line in error.splitlines() if line.startswith("error: ")]
        assert ended.value.code == 2 and len(lines) == 1
        assert f"run_dir '{run}': found another run at work in it (" in lines[0] and "run.lock" in lines[0]
        assert {path.name for path in run.iterdir()} <= {"run.lock", "run.lock.ranks"}
        first.release()
    train.main(command)
    assert (run / "summary.json").is_file() and not first.is_held()
    train.main(["test", *tiny_run, f"--run_dir={run}", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"])


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, mode: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = RunFolderLock(tmp_path)
    with pytest.warns(UserWarning, match=r"run\.lock: found a file system without locks .*no second run writes"):
        lock.take()
    lock.setup(SimpleNamespace(is_global_zero=False), None, "fit")  # type: ignore[arg-type]
    lock.release()
