from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch

from synfer.foundation.bfloat16 import bfloat16_autocast, computes_bfloat16_fast, warn_of_slow_bfloat16

CPU = torch.device("cpu")


@pytest.fixture(params=[False, True])
def units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """A processor without units for bfloat16, and one with them; what was warned of is forgotten."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: request.param)
    warn_of_slow_bfloat16.cache_clear()
    yield request.param
    warn_of_slow_bfloat16.cache_clear()


def test_sampling_warns_once_where_bfloat16_is_slow(units: bool) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(3):
            with bfloat16_autocast(CPU, True, "model.execution.bf16_sampling"):
                assert torch.is_autocast_enabled("cpu")
        with bfloat16_autocast(CPU, False, "another.key"):
            assert not torch.is_autocast_enabled("cpu")
    told = [str(warning.message) for warning in found]
    assert len(told) == (0 if units else 1)
    assert all(line.startswith("model.execution.bf16_sampling: found true on a processor without") for line in told)


def test_a_gpu_is_never_meant(units: bool) -> None:
    assert computes_bfloat16_fast("cuda") and computes_bfloat16_fast("cpu") is units


def test_a_torch_without_the_question_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert computes_bfloat16_fast("cpu")
