from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synfer.networks.tensor_cache import TensorCache

KEYS = [bytes([i]) * 16 for i in range(5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_come_back_bit_for_bit_in_the_next_run(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = (torch.randn(5, 2, 3) * 1e3).to(dtype)
    cache = TensorCache(tmp_path, {"kind": "x"}, tensors[0], shard_rows=2)
    cache.add(KEYS, tensors)
    cache.flush()
    again = TensorCache(tmp_path, {"kind": "x"}, tensors[0])
    assert len(again) == 5 and again.missing(KEYS) == []
    found = again.rows([KEYS[i] for i in (3, 0, 3)])
    assert found.dtype == dtype and torch.equal(found, tensors[[3, 0, 3]])
    assert cache.row_bytes == 6 * tensors.element_size()


def test_number_format_and_shape_tell_caches_apart(tmp_path: Path) -> None:
    like = torch.zeros(2, 3)
    folders = {
        TensorCache(tmp_path, {"kind": "x"}, made).vectors.folder
        for made in (like, like.bfloat16(), like.half(), like.view(3, 2))
    }
    assert len(folders) == 4


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, {}, torch.zeros(2, 3))
    for wrong in (torch.zeros(1, 3, 2), torch.zeros(1, 2, 3).half()):
        with pytest.raises(ValueError, match=r"tensor cache: found torch.*, expected torch.float32 \(1, 2, 3\)"):
            cache.add(KEYS[:1], wrong)
    with pytest.raises(ValueError, match=r"tensor cache: found torch.int64, expected one of"):
        TensorCache(tmp_path, {}, torch.zeros(2, dtype=torch.int64))
