"""Large memory is memory like any other: of its own, writable, and given back."""

from __future__ import annotations

import gc
import mmap
import resource

import pytest
import torch

from datamodules.loading.large_tensor import large_empty


@pytest.mark.parametrize("shape", [(2, 3, 4), (70, 3, 101, 103), (0, 3, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_holds_what_is_put_there(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    first, second = large_empty(shape, dtype), large_empty(shape, dtype)
    assert first.shape == shape and first.dtype == dtype and first.is_contiguous()
    first.fill_(1)
    second.fill_(2)
    assert bool((first == 1).all()) and bool((second == 2).all())
    view = second[1:]
    del second
    gc.collect()
    assert bool((view == 2).all())


def test_it_is_given_back() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(40):
        large_empty((64, 3, 200, 200)).fill_(1)  # 31 MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB on Linux


def test_without_large_pages_it_is_ordinary_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    large = large_empty((70, 3, 101, 103))
    large.fill_(3)
    assert bool((large == 3).all())
