"""Patience with processes that get on, none with those that hang."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ended, run_to_end


def test_a_process_that_works_is_waited_for() -> None:
    busy = "import time, subprocess, sys\nend = time.process_time() + 1.5\nwhile time.process_time() < end: pass\nprint('done')"
    process = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert ended(process, idle_s=1.2)[0] == "done\n"
    failed = run_to_end([sys.executable, "-c", "raise SystemExit(3)"])
    assert failed.returncode == 3


def test_a_process_that_hangs_is_ended_with_its_children() -> None:
    hangs = "import subprocess, sys\nprint('here', flush=True)\nsubprocess.run([sys.executable, '-c', 'input()'], stdin=sys.stdin)"
    process = subprocess.Popen(
        [sys.executable, "-c", hangs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with pytest.raises(AssertionError, match="idle for 2 s"):
        ended(process, idle_s=2)
    assert process.returncode == -9
