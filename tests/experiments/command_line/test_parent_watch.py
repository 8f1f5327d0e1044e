"""A rank does not outlive the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

RANK = "import time; from experiments.command_line.parent_watch import end_with_parent; end_with_parent(0.05, 0.1)\n"
RANK += "print('rank', flush=True); time.sleep(60)"
LAUNCHER = f"""
import os, subprocess, sys, time
from experiments.command_line.parent_watch import announce_parent
announce_parent()
rank = subprocess.Popen([sys.executable, "-c", {RANK!r}], env={{**os.environ, **dict([sys.argv[1].split("=")])}})
print(rank.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("variable", "ends"), [("LOCAL_RANK=1", True), ("LOCAL_RANK=0", False)])
def test_a_rank_ends_with_its_launcher(variable: str, ends: bool) -> None:
    command = [sys.executable, "-c", LAUNCHER, variable]
    launcher = subprocess.Popen(
        command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None and launcher.stderr is not None
    rank = int(launcher.stdout.readline())
    assert launcher.stdout.readline() == "rank\n"
    launcher.kill()
    launcher.wait()
    if ends:
        assert f"the process {launcher.pid} that started it has died" in launcher.stderr.read()  # until it is closed
    else:
        time.sleep(0.3)
        os.kill(rank, 9)  # still there
