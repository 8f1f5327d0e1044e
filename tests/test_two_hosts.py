"""Two hosts, as two network namespaces: they train together, and a cut cable between them ends both in bounded time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import train
from tests.fixtures.processes import IDLE_S, ended
from tests.test_resume import config, fit, summary

PROJECT = Path(train.__file__).parent
SILENCE_S = 15

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ddp,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="needs root and iproute2 to make network namespaces",
    ),
]


class TwoHosts:
    """Two namespaces with a cable between them."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self.names = [f"synfer{number}{end}" for end in "ab"]
        self.cards = [f"sf{number}{end}" for end in "ab"]
        self.addresses = [f"10.213.{number}.{last}" for last in (1, 2)]

    def open(self) -> None:
        self._ip("link", "add", self.cards[0], "type", "veth", "peer", "name", self.cards[1])
        for name, card, address in zip(self.names, self.cards, self.addresses, strict=True):
            self._ip("netns", "add", name)
            self._ip("link", "set", card, "netns", name)
            self._ip("-n", name, "addr", "add", f"{address}/24", "dev", card)
            self._ip("-n", name, "link", "set", "lo", "up")
            self._ip("-n", name, "link", "set", card, "up")

    def cut(self) -> None:
        """No reset arrives: packets go nowhere from now on."""
        self._ip("-n", self.names[0], "link", "set", self.cards[0], "down")

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def start(self, host: int, command: list[str]) -> subprocess.Popen[str]:
        """Starts a rank on a host, as srun would: one task on each of two nodes."""
        slurm = {"JOB_ID": 77, "JOB_NAME": "two", "STEP_ID": 0, "NTASKS": 2, "NTASKS_PER_NODE": 1, "NNODES": 2}
        slurm |= {"PROCID": host, "NODEID": host, "LOCALID": 0}
        variables = {f"SLURM_{name}": str(value) for name, value in slurm.items()}
        variables |= {"SLURM_NODELIST": ",".join(self.addresses), "SLURMD_NODENAME": f"host{'ab'[host]}"}
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[host], sys.executable, str(PROJECT / "train.py"), *command],
            cwd=PROJECT,
            env={**os.environ, **variables, "GLOO_SOCKET_IFNAME": self.cards[host]},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    made = TwoHosts()
    try:
        made.open()
        yield made
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr}")
    finally:
        made.close()


def test_a_cut_cable_ends_both_hosts(hosts: TwoHosts, tmp_path: Path) -> None:
    given = config(tmp_path, "classifier", trainer={"strategy": "ddp", "num_nodes": 2, "max_steps": 4000})
    slow = {"class_path": "tests.fixtures.slow_steps.SlowSteps", "init_args": {"seconds": 0.2}}
    words = fit(given, tmp_path, f"--cluster.silence_s={SILENCE_S}", callbacks=(slow,))
    ranks = [hosts.start(host, words) for host in (0, 1)]
    steps, began = tmp_path / "run" / "steps.jsonl", time.monotonic()
    while not steps.exists() or len(steps.read_text().splitlines()) < 5:
        time.sleep(0.2)
        assert time.monotonic() - began < 5 * IDLE_S and all(rank.poll() is None for rank in ranks)
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
