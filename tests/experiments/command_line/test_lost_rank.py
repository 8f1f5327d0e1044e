from __future__ import annotations

import subprocess
import sys

from experiments.command_line.lost_rank import how_ranks_ended


def ended(program: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", program])
    process.wait()
    return process


def test_how_each_rank_ended() -> None:
    killed = ended("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    failed, whole = ended("raise SystemExit(3)"), ended("")
    assert how_ranks_ended([failed]) == "rank 1 ended early with exit code 3, its own error stands above"
    said = how_ranks_ended([whole, killed])
    assert said == "rank 2 was ended by SIGKILL (by hand, or by the system where memory runs out)"
    assert how_ranks_ended([whole]).startswith("rank 1 ended early without an error (exit code 0)")
    assert "one on another machine ended" in how_ranks_ended([])
