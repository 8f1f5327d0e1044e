"""Two hosts, as two network namespaces: they train and make faces together, and no fault leaves one of them waiting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.fixtures.processes import IDLE_S, ended, family
from tests.fixtures.tiny_predict import save_weights, tiny_predict
from tests.fixtures.two_hosts import WHY_NOT, TwoHosts, can_be_made
from tests.test_resume import STEPS, assert_same_run, config, fit, in_a_process, summary

SILENCE_S = 15
TWO: dict[str, Any] = {"strategy": "ddp", "max_steps": STEPS + 2}

pytestmark = [pytest.mark.slow, pytest.mark.ddp, pytest.mark.skipif(not can_be_made(), reason=WHY_NOT)]


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    made = TwoHosts()
    try:
        made.open()
        yield made
    finally:
        made.close()


def together(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Waits for both hosts, which shall end well, and returns what they said."""
    said = [ended(process)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(text[-3000:] for text in said)
    return said


def killed_once(folder: Path, step: int) -> dict[str, Any]:
    given = {"step": step, "rank": 1, "folder": str(folder)}
    return {"class_path": "tests.fixtures.stop_at.KilledOnce", "init_args": given}


def slow_run(folder: Path, **trainer: Any) -> list[str]:
    """Returns the command line of a fit that goes on until something happens to it."""
    given = config(folder, "classifier", trainer={"strategy": "ddp", "num_nodes": 2, "max_steps": 4000, **trainer})
    slow = {"class_path": "tests.fixtures.slow_steps.SlowSteps", "init_args": {"seconds": 0.2}}
    return fit(given, folder, f"--cluster.silence_s={SILENCE_S}", callbacks=(slow,))


def wait_for_steps(folder: Path, processes: list[subprocess.Popen[str]]) -> Path:
    steps, began = folder / "run" / "steps.jsonl", time.monotonic()
    while not steps.exists() or len(steps.read_text().splitlines()) < 5:
        time.sleep(0.2)
        assert time.monotonic() - began < 5 * IDLE_S and all(process.poll() is None for process in processes)
    return steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A mixed run on two ranks of one host that nobody has disturbed, and its configuration."""
    folder = tmp_path_factory.mktemp("mixed")
    given = config(folder, "mixed", trainer=TWO)
    assert in_a_process(fit(given, folder / "whole", "--trainer.devices=2")) == 0
    return folder / "whole", given


@pytest.mark.parametrize("rendezvous", ["static", "c10d"])
def test_a_killed_rank_of_a_mixed_fit_goes_on(
    hosts: TwoHosts, rendezvous: str, whole: tuple[Path, Path], tmp_path: Path
) -> None:
    uninterrupted, given = whole
    more = ["--checkpoint.every_n_train_steps=1", "--trainer.num_nodes=2"]
    if rendezvous == "c10d":  # as a user names the backend
        name, settings = "lightning.pytorch.strategies.DDPStrategy", {"process_group_backend": "gloo"}
        more.append(f"--trainer.strategy={json.dumps({'class_path': name, 'init_args': settings})}")
    words = fit(given, tmp_path, *more, callbacks=(killed_once(tmp_path, 3),))
    together([hosts.torchrun(host, rendezvous, 3, words) for host in (0, 1)])
    assert (tmp_path / "killed").exists()
    record = summary(tmp_path)
    assert [attempt["restarts"] for attempt in record["attempts"]] == [0, 1]
    from_step = record["attempts"][1]["from_step"]
    assert from_step in (1, 2) and record["world_size"] == 2 and record["complete"]
    assert_same_run(tmp_path, uninterrupted, from_step, ranks=2)
    counts, faces = record["counts"], 2 * 8 * TWO["max_steps"]
    assert counts["real"] + counts["synthetic"] == faces and abs(counts["synthetic"] - 0.4 * faces) < 1


@pytest.mark.parametrize("rendezvous", ["static", "c10d"])
def test_a_killed_rank_of_a_predict_goes_on(hosts: TwoHosts, rendezvous: str, tmp_path: Path) -> None:
    save_weights(tmp_path)
    count = 46  # an uneven number of batches and of faces
    words = [*tiny_predict(tmp_path, count, 4), "--trainer.strategy=ddp", "--trainer.num_nodes=2"]
    words.append(f"--run_dir={tmp_path / 'run'}")
    words += [f"--trainer.callbacks+={json.dumps(killed_once(tmp_path, 3))}"]
    together([hosts.torchrun(host, rendezvous, 3, words) for host in (0, 1)])
    assert (tmp_path / "killed").exists()
    table = pq.read_table(tmp_path / "run" / "synthetic_set" / "data", columns=["sample_id"])
    names = table.column("sample_id").to_pylist()
    assert len(names) == count == len(set(names)), sorted(names)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "finished"


def test_a_dead_host_ends_the_other(hosts: TwoHosts, tmp_path: Path) -> None:
    """A launcher and its rank are killed together, as when a machine loses its power; nobody starts them again."""
    agents = [hosts.torchrun(host, "c10d", 0, slow_run(tmp_path)) for host in (0, 1)]
    wait_for_steps(tmp_path, agents)
    died = time.monotonic()
    for process in family(agents[1].pid):
        os.kill(process, signal.SIGKILL)
    said = ended(agents[0])[1]
    seconds = time.monotonic() - died
    assert agents[0].returncode != 0 and seconds < 4 * SILENCE_S, f"{seconds:.0f} s"
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "rank 1 (" in lines[0] and "was lost" in lines[0], said[-3000:]
    record = summary(tmp_path)
    assert record["status"] == "failed" and "rank 1 (" in record["error"] and record["continue_with"]


def test_a_cut_cable_ends_both_hosts(hosts: TwoHosts, tmp_path: Path) -> None:
    words = slow_run(tmp_path)
    ranks = [hosts.start(host, words) for host in (0, 1)]
    steps = wait_for_steps(tmp_path, ranks)
    cut = time.monotonic()
    hosts.cut()
    said = [ended(rank)[1] for rank in ranks]
    seconds = time.monotonic() - cut
    assert [rank.returncode for rank in ranks] == [1, 1], said
    assert seconds < 4 * SILENCE_S, f"{seconds:.0f} s"
    assert "rank 1 (hostb, process" in said[0] and "no sign of life" in said[0]
    assert "rank 1 (hostb, process" in said[1] and "cut off from rank 0" in said[1]
    assert all(text.count("error") == 1 for text in said), said
    record = summary(tmp_path)
    assert record["status"] == "failed" and "hostb" in record["error"] and record["continue_with"]
    assert record["world_size"] == 2 and json.loads(steps.read_text().splitlines()[-1])["step"] >= 5
