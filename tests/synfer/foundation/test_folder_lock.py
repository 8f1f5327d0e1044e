"""A lock is held as long as somebody is at work, and no longer."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synfer.foundation.folder_lock import FolderLock, NoLocksError, RanksLock

CODE = "import sys, time; from pathlib import Path; from synfer.foundation.folder_lock import RanksLock\n"
CODE += "lock = RanksLock(Path(sys.argv[1])); {}; print('held', flush=True); time.sleep(60)"


def holding(path: Path, how: str) -> subprocess.Popen[str]:
    """Starts another process that holds the lock."""
    project = Path(__file__).parents[3]
    command = [sys.executable, "-c", CODE.format(how), str(path)]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("how", ["lock.take()", "lock.join()"])
def test_a_newcomer_waits_for_the_last_rank(tmp_path: Path, how: str) -> None:
    process = holding(tmp_path / "new" / "x.lock", how)
    lock = RanksLock(tmp_path / "new" / "x.lock")
    assert f"process {process.pid} on" in lock.take(patience_s=0) and lock.is_held()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not lock.is_held() and lock.take() == ""  # nothing stale is left
    lock.join()  # and rank 0 does not shut its own ranks out
    lock.release()
    assert not lock.is_held()


def test_workers_do_not_hold_it(tmp_path: Path) -> None:
    lock = RanksLock(tmp_path / "x.lock")
    assert lock.take() == ""
    out, into = os.pipe()
    worker = os.fork()
    if worker == 0:  # as a data worker is started
        os.close(into)
        os.read(out, 1)
        os._exit(0)
    lock.release()
    assert RanksLock(tmp_path / "x.lock").take() == ""
    os.close(into)
    os.waitpid(worker, 0)
    os.close(out)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, mode: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for take in (FolderLock(tmp_path / "x").take, RanksLock(tmp_path / "x").take, RanksLock(tmp_path / "x").join):
        with pytest.raises(NoLocksError, match=r"a file system without locks .No locks available") as caught:
            take()
        assert "\n" not in str(caught.value)
