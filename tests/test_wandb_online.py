"""Runs that are online, against a server on loopback: one W&B run per training, and what an agent is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import train
from tests.fixtures.processes import run_to_end
from tests.fixtures.wandb_server import ENTITY, PROJECT, WandbServer

ROOT = Path(train.__file__).parent


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.mark.slow
def test_a_run_that_goes_on_is_the_same_run_online(server: WandbServer, tiny_run: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*tiny_run, "--trainer.max_epochs=3", "--wandb.faces=0", f"--run_dir={run}"]
    stop = json.dumps({"class_path": "tests.fixtures.stop_at.StopAt", "init_args": {"step": 3, "how": "SIGUSR1"}})
    for more, code in (([f"--trainer.callbacks+={stop}"], 138), ([f"--ckpt_path={run}"], 0)):
        done = run_to_end(
            [sys.executable, str(ROOT / "train.py"), "fit", *words, *more], cwd=ROOT, env=dict(os.environ)
        )
        assert done.returncode == code, done.stderr[-2000:]
    (wandb_id,) = server.runs  # one, whatever the number of starts
    assert json.loads((run / "summary.json").read_text())["wandb_id"] == wandb_id
    assert not list((run / "wandb").glob("offline-run-*"))
    rows = server.history(wandb_id)
    steps = [row["trainer/global_step"] for row in rows if "train/loss_step" in row]
    assert steps == sorted(set(steps)) and {row["_step"] for row in rows} == set(range(len(rows)))
    assert server.endings[wandb_id] == [138, 0]  # what the run itself says of its ends


def test_a_post_that_is_sent_again_counts_once(server: WandbServer) -> None:
    """A client whose connection was reset sends the same lines again, at the same offset."""
    rows = [json.dumps({"_step": step}) for step in range(4)]
    for offset, end, code in ((0, 2, None), (0, 2, None), (2, 4, 138), (2, 4, 138)):
        files = {"wandb-history.jsonl": {"offset": offset, "content": rows[offset:end]}}
        post = urllib.request.Request(
            f"{server.url}/files/{ENTITY}/{PROJECT}/mine/file_stream",
            json.dumps({"files": files, "exitcode": code}).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(post).read()
    assert [row["_step"] for row in server.history("mine")] == [0, 1, 2, 3] and server.endings["mine"] == [138]


@pytest.mark.slow
def test_what_an_agent_starts_is_what_the_parser_takes(server: WandbServer, tmp_path: Path) -> None:
    """A real agent, with a program in the place of train.py that writes down how it was started."""
    (tmp_path / "train.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]), file=open('starts', 'a'))\n")
    (tmp_path / "wandb").mkdir()
    configs = [f"--config={ROOT / 'configs' / name}" for name in ("data/drawn.yaml", "classifier/tiny.yaml")]
    content = {
        "program": "train.py",
        "method": "grid",
        "command": ["${env}", "${interpreter}", "${program}", "fit", *configs, "${args}"],
        "parameters": {
            "data.synthetic_multiple": {"values": [None, 2.0]},
            "data.label_table": {"value": None},
            "model.backbone_kwargs": {"value": {"stem_width": 8, "block_args": None}},
        },
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    wandb = [sys.executable, "-m", "wandb"]
    made = run_to_end([*wandb, "sweep", "--project", PROJECT, "--entity", ENTITY, "sweep.yaml"], cwd=tmp_path)
    assert made.returncode == 0, made.stderr[-2000:]
    agent = subprocess.run(
        [*wandb, "agent", f"{ENTITY}/{PROJECT}/grid"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    starts = [json.loads(line) for line in (tmp_path / "starts").read_text().splitlines()]
    assert len(starts) == len(server.given) == 2, agent.stderr[-2000:]
    assert "--data.synthetic_multiple=None" in starts[0]
    found = [train.parse(start) for start in starts]
    assert [settings.data.synthetic_multiple for settings in found] == [None, 2.0]
    assert all(settings.data.label_table is None for settings in found)
    kwargs = {"stem_width": 8, "block_args": None}
    assert all(settings.model.init_args.backbone_kwargs == kwargs for settings in found)
