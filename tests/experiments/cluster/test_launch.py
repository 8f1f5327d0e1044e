"""Where a run lives, by the variables that SLURM 22.05 and torchrun really set."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from experiments.cluster.launch import (
    Launch,
    find_launch,
    first_node,
    meeting_place,
    store_of_restart,
    tell_lightning,
)

BATCH = {
    "ENVIRONMENT": "BATCH",
    "SLURM_CLUSTER_NAME": "here",
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "train.sbatch",
    "SLURM_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
"""The script of a batch job."""

STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "node[1-2]"}
"""A task that ``srun`` in this script has started."""

ALLOCATION = {"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "name", "SLURM_NTASKS": "2", "SLURM_NODELIST": "node1"}
"""A shell of ``salloc``."""

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "one",
    "MASTER_PORT": "29500",
}
WORDS = ["fit", "--config=x.yaml"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"kind": "shell", "job": None, "name": None}),
        ({"LOCAL_RANK": "1"}, {"kind": "lightning", "rank": 1}),
        (BATCH, {"kind": "shell", "rank": 0, "world_size": 1, "job": "slurm here 17", "tasks": 2}),
        (STEP, {"kind": "slurm", "rank": 1, "world_size": 2, "job": "slurm here 17", "slurm_job": "17"}),
        ({**STEP, "SLURM_RESTART_COUNT": "2"}, {"restarts": 2, "job": "slurm here 17"}),
        ({**STEP, "SLURM_JOB_NAME": "interactive"}, {"kind": "shell"}),  # Lightning starts the ranks of this task
        ({**STEP, "SLURM_STEP_ID": str(0xFFFF_FFFA)}, {"kind": "shell"}),  # SLURM's own interactive step
        (ALLOCATION, {"kind": "shell", "job": None, "name": None, "tasks": 2, "slurm_job": "17"}),
        ({**STEP, "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}, {"slurm_job": "9_3"}),
        (TORCHRUN, {"kind": "torchrun", "rank": 3, "world_size": 4, "job": None}),
        ({**TORCHRUN, "TORCHELASTIC_RUN_ID": "mine"}, {"job": "torchrun mine"}),
        ({**STEP, **TORCHRUN}, {"kind": "torchrun", "rank": 3, "job": "slurm here 17"}),
    ],
)
def test_every_kind_of_start(environment: dict[str, str], expected: dict[str, Any]) -> None:
    found = find_launch(environment, WORDS)
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_batch_job_that_runs_again_has_the_same_name_and_two_commands_have_two() -> None:
    name = find_launch(STEP, WORDS).name
    assert name is not None and name.startswith("slurm-17-")
    later = {**STEP, "SLURM_RESTART_COUNT": "1", "SLURM_STEP_ID": "5", "SLURM_PROCID": "0"}
    assert find_launch(later, WORDS).name == name == find_launch(BATCH, WORDS).name
    assert find_launch(STEP, [*WORDS, "--seed_everything=2"]).name != name
    typed = {key: value for key, value in STEP.items() if key != "ENVIRONMENT"}
    assert find_launch(typed, WORDS).name == "slurm-17-0" and find_launch(typed, WORDS).job is None


def test_variables_of_half_a_launcher_are_one_line() -> None:
    with pytest.raises(ValueError, match="expected those of one launcher alone"):
        find_launch({"TORCHELASTIC_RUN_ID": "none"}, WORDS)


def test_lightning_starts_ranks_where_srun_does_not() -> None:
    environment = dict(ALLOCATION)
    tell_lightning(find_launch(environment, WORDS), environment)
    assert environment["SLURM_JOB_NAME"] == "interactive"
    environment = {**STEP, "SLURM_STEP_TASKS_PER_NODE": "2(x3)"}
    tell_lightning(find_launch(environment, WORDS), environment)
    assert environment["SLURM_NTASKS_PER_NODE"] == "2" and environment["SLURM_JOB_NAME"] == "train.sbatch"
    ports = set()
    for step in ("0", "1"):
        environment = {**STEP, "SLURM_STEP_ID": step}
        tell_lightning(find_launch(environment, WORDS), environment)
        ports |= {environment["MASTER_PORT"], str(meeting_place(find_launch(environment, WORDS), environment)[1])}
    assert len(ports) == 4  # two steps at a time do not meet at one place
    environment = {}
    tell_lightning(Launch("shell"), environment)
    assert not environment


def test_where_ranks_meet() -> None:
    assert meeting_place(find_launch(TORCHRUN, WORDS), TORCHRUN) == ("one", 29500, False)
    host, port, keeps = meeting_place(find_launch(STEP, WORDS), STEP)
    assert host == "node1" and 25_000 <= port < 32_000 and not keeps
    first = {**STEP, "SLURM_PROCID": "0"}
    assert meeting_place(find_launch(first, WORDS), first) == (host, port, True)


def test_the_group_of_a_restart_meets_at_a_store_of_its_own() -> None:
    """The store of torchrun still has the first start's keys, at which gloo waits without end."""
    with socket.create_server(("127.0.0.1", 0)) as agent:
        variables = {**TORCHRUN, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agent.getsockname()[1])}
        launch = find_launch(variables, WORDS)
        assert store_of_restart(launch, 1, variables) == {}
        told = store_of_restart(launch, 2, variables)
        assert told["TORCHELASTIC_USE_AGENT_STORE"] == "False" and told["MASTER_ADDR"] == "127.0.0.1"
        assert told["MASTER_PORT"] != variables["MASTER_PORT"]
    assert store_of_restart(find_launch(STEP, WORDS), 2, STEP) == {}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node1", "node1"), ("gpu[03-07,09],login1", "gpu03"), ("a-b[1,3]-x", "a-b1-x"), ("x,y", "x"), ("n[7]", "n7")],
)
def test_first_node(nodes: str, first: str) -> None:
    assert first_node(nodes) == first
