"""Patience with processes that get on, none with those that hang."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fixtures.processes import ended, run_to_end

BUSY = """
import time
end = time.process_time() + 1.5
while time.process_time() < end: pass
print("done")
"""
HANGS = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])
"""


def started(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_that_works_is_waited_for() -> None:
    assert ended(started(BUSY), idle_s=1.2)[0] == "done\n"
    assert run_to_end([sys.executable, "-c", "raise SystemExit(3)"]).returncode == 3


def test_a_process_that_hangs_is_ended_with_its_children() -> None:
    process = started(HANGS)
    with pytest.raises(AssertionError, match="idle for 2 s"):
        ended(process, idle_s=2)
    assert process.returncode == -9
