from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from synfer.networks.au_estimator import CONFIG_FILE, WEIGHTS_FILE, ActionUnitNetwork, read_config

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def tiny(au_names: list[str] | None = None) -> ActionUnitNetwork:
    torch.manual_seed(0)
    return ActionUnitNetwork(au_names or ["AU12", "AU4"], "vit_tiny_patch16_224", 32, TINY)


def test_comes_back_from_its_folder(tmp_path: Path) -> None:
    estimator = tiny().eval()
    estimator.save(tmp_path / "au")
    loaded, image = ActionUnitNetwork.load(tmp_path / "au"), torch.rand(3, 3, 40, 40)
    found = loaded(image)
    assert torch.equal(found, estimator(image)) and found.shape == (3, 2) and not found.requires_grad
    assert ((found > 0) & (found < 1)).all()
    assert loaded.au_names == ("AU12", "AU4") and not loaded.training


def test_a_run_folder_means_the_estimator_that_its_run_left_there(tmp_path: Path) -> None:
    tiny().save(tmp_path / "run" / "au_estimator")
    assert ActionUnitNetwork.load(tmp_path / "run").au_names == ("AU12", "AU4")
    assert read_config(tmp_path / "run") == read_config(tmp_path / "run" / "au_estimator")


def test_unknown_intensities_teach_nothing() -> None:
    estimator, image = tiny(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        known = estimator.loss(image[:1], torch.tensor([[1.0, 0.0]]))
        both = estimator.loss(image, torch.tensor([[1.0, 0.0], [math.nan, math.nan]]))
        none = estimator.loss(image, torch.full((2, 2), math.nan))
    assert both == pytest.approx(float(known)) and none == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"au_names": ["AU12", "AU99"]}, "unknown action unit 'AU99'"),
        (
            {"au_names": ["AU12"]},
            r"its weights do not fit: 'backbone\.head\.weight' has the shape \(2, 32\), the network \(1, 32\)",
        ),
        ({"classes": 3}, r"config.json has .*'classes'"),
    ],
)
def test_folders_that_do_not_fit(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny().save(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=message):
        ActionUnitNetwork.load(tmp_path)


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no config.json"):
        ActionUnitNetwork.load(tmp_path)
    tiny().save(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("{")
    with pytest.raises(ValueError, match="found no JSON"):
        ActionUnitNetwork.load(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"found no model.safetensors"):
        ActionUnitNetwork.load(tmp_path)


@pytest.mark.parametrize("names", [[], ["AU12", "AU12"]])
def test_names_once_each(names: list[str]) -> None:
    with pytest.raises(ValueError, match="expected at least one, each once"):
        ActionUnitNetwork(names)
