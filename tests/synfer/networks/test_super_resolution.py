"""Faces made larger by a network of another library: the same in any batch, and one line where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synfer.networks.super_resolution import SuperResolution
from tests.fixtures.outside_models import save_super_resolution


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_super_resolution(tmp_path_factory.mktemp("larger") / "model")


def test_a_face_is_the_same_in_any_batch(folder: Path) -> None:
    network = SuperResolution(folder)
    faces = torch.randint(256, (10, 3, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    large = network.enlarge(faces)
    assert network.scale == 2 and large.dtype == torch.uint8 and large.shape == (10, 3, 20, 20)
    for part in (faces[:1], faces[3:6], faces[2:]):
        first = next(i for i in range(10) if torch.equal(faces[i], part[0]))
        assert torch.equal(network.enlarge(part), large[first : first + len(part)])
    assert len(large.unique()) > 50  # a picture, and not an edge of the range
    assert network.enlarge(faces[:1], 16).shape == (1, 3, 16, 16)
    assert SuperResolution(folder).fingerprint() == network.fingerprint()


def test_what_does_not_enlarge_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^--model: found no folder '.*none', expected a super-resolution"):
        SuperResolution(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^--model '.*empty': found no config\.json, expected a super-resolution"):
        SuperResolution(tmp_path / "empty")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match=r"^--model '.*bare': .*expected a super-resolution model in transformers'"):
        SuperResolution(tmp_path / "bare")
    same = save_super_resolution(tmp_path / "same", upscale=1)
    with pytest.raises(ValueError, match=r"found a model that makes 16 pixels 16, expected one that enlarges"):
        SuperResolution(same)
