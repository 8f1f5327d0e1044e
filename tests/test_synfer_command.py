"""``synfer fit`` on two ranks: each runs the command again, from its own words, and knows the preset."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

import train
from synfer.runs.run_format import read_summary
from tests.fixtures.processes import run_to_end

PROJECT = Path(train.__file__).parent
pytestmark = [pytest.mark.ddp, pytest.mark.slow]


@pytest.mark.parametrize(
    "start",
    [
        [sys.executable, "-m", "synfer"],
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "synfer"],
    ],
    ids=["lightning", "torchrun"],
)
def test_two_ranks(start: list[str], tmp_path: Path) -> None:
    record = {"class_path": "tests.fixtures.rank_record.RankRecord", "init_args": {"folder": str(tmp_path)}}
    (tmp_path / "record.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [record], "max_steps": 1}}))
    words = ["fit", "--preset", "demo", f"--config={tmp_path / 'record.yaml'}", f"--run_dir={tmp_path / 'run'}"]
    words += ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.enable_progress_bar=false"]
    words += ["--data.reader.init_args.count={train: 56, val: 14, test: 14}", "--data.batch_size=4"]
    words += ["--synthesis.initial_samples=4", "--synthesis.batch_size=4", "--synthesis.sampling.num_steps=2"]
    done = run_to_end([*start, *words], cwd=PROJECT, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob("rank*.json")) == ["rank0.json", "rank1.json"]
    assert read_summary(tmp_path / "run")["status"] in ("finished", "stopped")
