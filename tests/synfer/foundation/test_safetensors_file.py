"""Weights that were saved can be read by those who may read new files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from synfer.foundation.safetensors_file import write_safetensors
from synfer.networks.au_estimator import ActionUnitNetwork
from tests.fixtures.tiny_generator import tiny_generator


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_safetensors(tmp_path / "a.safetensors", {"a": torch.arange(6.0).reshape(2, 3).T})
        tiny_generator().save_trained(tmp_path / "generator")
        backbone = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
        ActionUnitNetwork(["AU12"], "vit_tiny_patch16_224", 32, backbone).save(tmp_path / "estimator")
    finally:
        os.umask(before)
    assert load_file(tmp_path / "a.safetensors")["a"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    written = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert {path.name for path in written} == {"a.safetensors", "model.safetensors", "config.json"}
    assert {oct(path.stat().st_mode & 0o777) for path in written} == {oct(mode)}
