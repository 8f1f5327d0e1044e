"""Whoever loads weights refuses those that are no numbers, in one line with the file and the first such tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.voter import load_voter
from synfer.networks.au_estimator import ActionUnitNetwork
from synfer.networks.backbone import build_backbone
from synfer.networks.feature_extractor import read_weights
from synfer.networks.latent_codec import load_codec
from tests.fixtures.outside_models import save_clip, save_timm
from tests.fixtures.tiny_generator import save_checkpoint, tiny_classifier, tiny_generator

NETWORK = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def spoil(path: Path) -> Path:
    """Puts a NaN into the second tensor of a file, in its raw weights and in their average."""
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        _spoil(tensors)
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        content = torch.load(path, weights_only=True)
        _spoil(content.get("state_dict", content))
        torch.save(content, path)
    return path


def _spoil(tensors: dict[str, torch.Tensor]) -> None:
    name = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim][1]
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[-1] = torch.nan


def generator_folder(folder: Path) -> Path:
    tiny_generator().save_trained(folder)
    return spoil(folder / "model.safetensors")


def estimator(folder: Path) -> Path:
    ActionUnitNetwork(["AU6", "AU12"], "vit_tiny_patch16_224", 16, dict(NETWORK)).save(folder)
    return spoil(folder / "model.safetensors")


def average(folder: Path) -> Path:
    """Writes a classifier whose raw weights are fine, and whose average is not."""
    path = save_checkpoint(tiny_classifier(ema_decay=0.9), folder / "average.ckpt")
    content = torch.load(path, weights_only=True)
    names = [n for n in content["state_dict"] if n.startswith("backbone.")]
    tensors = {name.removeprefix("backbone."): content["state_dict"][name].clone() for name in names}
    _spoil(tensors)
    content["expression_classifier"]["ema"] = {"decay": 0.9, "num_updates": 1, "average": tensors}
    torch.save(content, path)
    return path


def backbone(folder: Path) -> Path:
    network: Any = timm.create_model("resnet10t", num_classes=2)
    torch.save(network.state_dict(), folder / "backbone.pth")
    return spoil(folder / "backbone.pth")


def judge(folder: Path) -> Path:
    return spoil(save_checkpoint(tiny_classifier(), folder / "judge.ckpt"))


def generator(folder: Path) -> Path:
    return spoil(save_checkpoint(tiny_generator(), folder / "generator.ckpt"))


CASES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "classifier": (judge, ExpressionClassifier.load_trained),
    "classifier's average": (average, ExpressionClassifier.load_trained),
    "voter": (judge, load_voter),
    "generator": (generator, ExpressionGenerator.load_trained),
    "generator's folder": (generator_folder, lambda path: ExpressionGenerator.load_trained(path.parent)),
    "codec": (generator_folder, lambda path: load_codec(str(path.parent))),
    "AU estimator": (estimator, lambda path: ActionUnitNetwork.load(path.parent)),
    "timm voter": (
        lambda f: spoil(save_timm(f, ["happy", "sad"]) / "model.safetensors"),
        lambda p: load_voter(p.parent),
    ),
    "CLIP voter": (lambda f: spoil(save_clip(f) / "model.safetensors"), lambda path: load_voter(path.parent)),
    "extractor": (backbone, read_weights),
    "backbone": (backbone, lambda path: build_backbone("resnet10t", 2, pretrained_path=str(path))),
}


@pytest.mark.parametrize("kind", CASES)
def test_weights_that_are_no_numbers_are_refused(kind: str, tmp_path: Path) -> None:
    write, read = CASES[kind]
    path = write(tmp_path)
    with pytest.raises(ValueError, match=r"found 1 of \d+ numbers in '\S+' that are NaN or infinite") as caught:
        read(path)
    line = str(caught.value)
    assert (str(path) in line or str(path.parent) in line) and "\n" not in line
