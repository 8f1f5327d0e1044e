from __future__ import annotations

import pytest
import torch

from lightning_modules.metrics.sample_mean import SampleMean


def test_mean_is_over_samples_not_over_batches() -> None:
    metric = SampleMean()
    for values in ([1.0, 2.0, 3.0], [], [10.0]):
        metric.update(torch.tensor(values))
    assert float(metric.compute()) == pytest.approx(4.0)


def test_only_counted_samples_count() -> None:
    metric = SampleMean()
    metric.update(torch.tensor([1.0, float("nan"), 5.0]), torch.tensor([True, False, True]))
    assert float(metric.compute()) == pytest.approx(3.0)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_seen_is_not_zero() -> None:
    metric = SampleMean()
    assert metric.compute().isnan()
    metric.update(torch.empty(0))
    assert metric.compute().isnan()
