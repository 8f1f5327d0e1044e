from __future__ import annotations

import pytest
import torch

from synfer.metrics.masked_mean import MaskedMean


def test_mean_is_over_samples_not_over_batches() -> None:
    metric = MaskedMean()
    for values in ([1.0, 2.0, 3.0], [], [10.0]):
        metric.update(torch.tensor(values))
    assert float(metric.compute()) == pytest.approx(4.0)


def test_only_counted_samples_count() -> None:
    metric = MaskedMean()
    metric.update(torch.tensor([1.0, float("nan"), 5.0]), torch.tensor([True, False, True]))
    assert float(metric.compute()) == pytest.approx(3.0)


def test_float64_except_where_the_device_has_none() -> None:
    metric = MaskedMean()
    metric.update(torch.tensor([2.0**25]))
    metric.update(torch.tensor([1.0]))
    assert metric.total.dtype == torch.float64 and float(metric.total) == 2**25 + 1

    def to_mps(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return tensor

    metric = MaskedMean()
    metric._apply(to_mps)
    metric.update(torch.tensor([1.0, 2.0]))
    assert float(metric.compute()) == 1.5
    metric.reset()
    assert metric.total.dtype == torch.float32
    metric._apply(to_mps)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_seen_is_not_zero() -> None:
    metric = MaskedMean()
    assert metric.compute().isnan()
    metric.update(torch.empty(0))
    assert metric.compute().isnan()
