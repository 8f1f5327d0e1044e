"""Pretrained backbones from a folder or the Hub: read, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from synfer.networks.backbone_source import find_backbone

NAME = "test_resnet"  # timm's own of a few thousand weights


def save_folder(folder: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    network = timm.create_model(NAME, num_classes=5)
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    pretrained = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "num_classes": 5}
    config = {"architecture": NAME, "num_classes": 5, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(config))
    return network.state_dict()


def test_names_of_timm_are_left_alone() -> None:
    assert find_backbone("resnet18") is None and find_backbone("no_such_network") is None


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_a_folder(prefix: str, tmp_path: Path) -> None:
    save_folder(tmp_path / "net")
    source = find_backbone(f"{prefix}{tmp_path / 'net'}")
    assert source is not None and source.architecture == NAME and source.mean == [0.1, 0.2, 0.3]
    assert source.weights == str(tmp_path / "net" / "model.safetensors") and source.arguments == {}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no folder 'models/gone', expected a name of timm, hf_hub:"):
        find_backbone("models/gone")
    save_folder(tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").rename(tmp_path / "net" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"found no model\.safetensors in "):
        find_backbone(str(tmp_path / "net"))
    (tmp_path / "net" / "pytorch_model.bin").rename(tmp_path / "net" / "model.safetensors")
    (tmp_path / "net" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="found no 'architecture'"):
        find_backbone(str(tmp_path / "net"))


def test_offline_the_hub_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=r"HF_HUB_OFFLINE is set.*hf download timm/resnet18.*or a folder"
    ) as caught:
        find_backbone("hf_hub:timm/resnet18.a1_in1k")
    assert "\n" not in str(caught.value)
