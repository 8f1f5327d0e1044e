from __future__ import annotations

import pytest
import torch

from synfer.optimisation.schedule import schedule_factor, scheduled


def test_one_cycle_rises_to_the_peak_and_falls_to_almost_nothing() -> None:
    factor = schedule_factor("one_cycle", total_steps=100, warmup_fraction=0.25)
    values = [factor(step) for step in range(100)]
    assert values[0] == pytest.approx(1 / 25)
    assert values[25] == max(values) == 1.0
    assert values[99] == pytest.approx(1e-4)
    assert values[:26] == sorted(values[:26])
    assert values[25:] == sorted(values[25:], reverse=True)
    assert factor(500) == values[99]


def test_cosine_and_constant_warm_up_linearly() -> None:
    cosine = schedule_factor("cosine", total_steps=11, warmup_fraction=0.0)
    assert [cosine(0), cosine(5), cosine(10)] == pytest.approx([1.0, 0.5, 0.0])
    constant = schedule_factor("constant", total_steps=10, warmup_fraction=0.4)
    assert [constant(step) for step in (0, 3, 4, 9)] == pytest.approx([0.2, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_one_step_is_a_training_too(schedule: str) -> None:
    assert 0 < schedule_factor(schedule, total_steps=1, warmup_fraction=0.25)(0) <= 1  # type: ignore[arg-type]


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="found 'linear'"):
        schedule_factor("linear", 10, 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="warmup_fraction 1"):
        schedule_factor("cosine", 10, 1.0)


def test_an_optimiser_follows_its_schedule() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    made = scheduled(torch.optim.SGD([weight], lr=0.5), "cosine", 10, 0.2)
    rates = []
    for _ in range(10):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    expected = [0.5 * schedule_factor("cosine", 10, 0.2)(step) for step in range(10)]
    assert rates == pytest.approx(expected) and made["lr_scheduler"]["interval"] == "step"


def test_only_a_constant_rate_needs_no_end() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    assert scheduled(optimizer, "constant", float("inf"), 0.0)["optimizer"] is optimizer
    with pytest.raises(ValueError, match="a schedule needs an end"):
        scheduled(optimizer, "one_cycle", float("inf"), 0.0)
