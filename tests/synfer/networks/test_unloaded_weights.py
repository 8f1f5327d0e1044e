from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from synfer.networks.unloaded_weights import UnloadedWeights


def test_weights_go_and_come_back(tmp_path: Path) -> None:
    modules = {"first": nn.Linear(3, 4).bfloat16(), "second": nn.Linear(2, 2)}
    before = {name: {k: p.clone() for k, p in m.named_parameters()} for name, m in modules.items()}
    same = {id(p) for m in modules.values() for p in m.parameters()}
    weights = UnloadedWeights(tmp_path, modules)
    for _ in range(2):
        weights.unload()
        weights.unload()
        assert weights.is_out and sum(p.numel() for m in modules.values() for p in m.parameters()) == 0
        weights.restore()
        weights.restore()
        assert not weights.is_out
        for name, module in modules.items():
            for key, parameter in module.named_parameters():
                assert torch.equal(parameter, before[name][key]) and parameter.dtype == before[name][key].dtype
    assert {id(p) for m in modules.values() for p in m.parameters()} == same
    assert len(list(tmp_path.iterdir())) == 1


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    weights = UnloadedWeights(tmp_path, {"first": nn.Linear(3, 4)})
    weights.unload()
    (path,) = tmp_path.iterdir()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="frozen weights"):
        weights.restore()
