"""What is asked of SLURM goes together, and with the ranks that are asked for, or is one line."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.cluster.slurm_options import SlurmOptions, SlurmWorld, requeues_of, seconds_of, slurm_world

TRAINER = {"devices": "auto", "num_nodes": 1, "accelerator": "auto"}


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("12:00:00", 43_200),
        ("2-6", 194_400),
        ("1-00:30", 88_200),
        ("1-00:00:05", 86_405),
        ("UNLIMITED", None),
    ],
)
def test_a_time_as_slurm_reads_it(limit: str, seconds: int | None) -> None:
    assert seconds_of(limit) == seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": "two hours"}, "slurm.time: found 'two hours', expected minutes"),
        ({"time": "3:00"}, "slurm.signal_s: found a warning 180 s ahead of a limit of 180 s"),
        ({"nodes": 0}, "slurm.nodes: found 0, expected at least 1"),
        ({"gpus_per_node": -1}, "slurm.gpus_per_node: found -1"),
        ({"signal_s": -1}, "slurm.signal_s: found -1"),
        ({"options": ["--time=5"]}, "slurm.options: found --time=5, expected slurm.time"),
        ({"options": ["-N", "2"]}, "slurm.options: found -N, expected slurm.nodes"),
        ({"options": ["account"]}, "slurm.options: found 'account', expected options such as"),
    ],
)
def test_what_is_refused_by_itself(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        SlurmOptions(**options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("options", "trainer", "expected"),
    [
        ({}, {}, (1, 1, 1)),
        ({}, {"accelerator": "cpu"}, (1, 1, 0)),
        ({"gpus_per_node": 0}, {}, (1, 1, 0)),
        ({"gpus_per_node": 4}, {}, (1, 4, 4)),
        ({"nodes": 2}, {"devices": 4}, (2, 4, 4)),
        ({"nodes": 2, "tasks_per_node": 8}, {"devices": "8", "num_nodes": 2}, (2, 8, 8)),
        ({"tasks_per_node": 2}, {"devices": -1, "accelerator": "cpu"}, (1, 2, 0)),
    ],
)
def test_the_world_of_both_groups(
    options: dict[str, Any], trainer: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    assert slurm_world(SlurmOptions(**options), {**TRAINER, **trainer}) == SlurmWorld(*expected)


@pytest.mark.parametrize(
    ("options", "trainer", "message"),
    [
        ({"nodes": 2}, {"num_nodes": 3}, "slurm.nodes: found 2 with trainer.num_nodes 3"),
        ({"tasks_per_node": 4}, {"devices": 2}, "slurm.tasks_per_node: found 4 with trainer.devices 2"),
        ({"gpus_per_node": 1}, {"accelerator": "cpu"}, "slurm.gpus_per_node: found 1 with trainer.accelerator cpu"),
        ({"gpus_per_node": 1}, {"accelerator": "gpu", "devices": 2}, "slurm.gpus_per_node: found 1 for 2 tasks"),
        ({}, {"devices": [0, 1]}, "trainer.devices: found [0, 1] with --slurm, expected a number"),
    ],
)
def test_what_contradicts(options: dict[str, Any], trainer: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        slurm_world(SlurmOptions(**options), {**TRAINER, **trainer})
    assert message in str(refused.value)


def test_who_is_not_warned_is_not_queued_again() -> None:
    assert requeues_of(SlurmOptions(), None) == 50 and requeues_of(SlurmOptions(), 0) == 0
    assert requeues_of(SlurmOptions(signal_s=0), None) == 0
    with pytest.raises(ValueError, match=r"slurm.signal_s: found 0 with cluster.requeues 3"):
        requeues_of(SlurmOptions(signal_s=0), 3)
