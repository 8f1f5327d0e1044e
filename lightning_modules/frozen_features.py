"""Features of faces by a network that stays as it is, whatever has trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.random import fork_rng

from lightning_modules.backbone_weights import load_backbone, read_backbone
from synfer.foundation.file_reading import FileError
from synfer.foundation.fingerprint import fingerprint
from synfer.networks.backbone import averaged_for_grey, build_backbone, normalisation
from synfer.networks.backbone_source import find_backbone
from synfer.networks.clip_folder import ClipFaces, is_clip
from synfer.networks.on_faces import OnFaces


class BackboneFaces(OnFaces):
    """A timm network without its last layer.

    Args:
        network: images (B, C, H, W) → features (B, F).
        image_size: side in pixels that it works on.
        mean: per channel, of images in [0, 1].
        std: likewise.
    """

    def __init__(self, network: nn.Module, image_size: int, mean: list[float], std: list[float]) -> None:
        super().__init__(mean, std)
        self.network, self.image_size = network, image_size

    def forward(self, image: Tensor) -> Tensor:
        """Returns unit rows float32 (B, F) of images (B, 3, H, W) in [0, 1]."""
        return F.normalize(self.network(self.prepare(image)).float(), dim=1)


class FrozenFeatures(nn.Module):
    """Reads a network of any kind that has features: a pre-training's, a classifier's, a CLIP model's, one of timm.

    Args:
        path: a checkpoint or run folder of :class:`lightning_modules.pretraining.FacePretraining` or of an
            :class:`lightning_modules.classifier.ExpressionClassifier`, a folder of ``save_trained``, of a CLIP model in
            transformers' layout, or of a network in timm's.
        setting: that named it, for errors.

    Attributes:
        source: path, kind and fingerprint, for records.
        image_size: side in pixels that the network works on.
        clip: the network where it is a CLIP model; None = another.
        trained_on: content hashes of the rows that it has learned from, int64, sorted; None = not recorded.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: nothing of these, or a classifier of latents.
    """

    @fork_rng(devices=[])
    def __init__(self, path: str, setting: str = "model.backbone_weights") -> None:
        super().__init__()
        self.trained_on: np.ndarray | None = None
        self.network: OnFaces
        place = Path(path)
        if place.is_dir() and is_clip(place):
            self.network, kind = ClipFaces(place, f"{setting}"), "clip"
        elif place.is_dir() and _is_timm(place):
            self.network, kind = _timm(path), "timm"
        else:
            stored = read_backbone(path, setting)
            if not stored.settings:
                raise FileError(
                    f"{setting} '{path}': found weights without the settings of their network, expected a checkpoint, "
                    "a run folder or a folder with a config.json"
                )
            if stored.settings.get("latents_of") is not None:
                raise FileError(f"{setting} '{path}': found a classifier of latents, expected one that reads pixels")
            self.network, kind = _built(stored.settings), stored.kind
            load_backbone(self.network.network, stored, stored.settings, setting)  # type: ignore[arg-type]
            self.trained_on = stored.trained_on
        self.image_size = self.network.image_size
        self.clip = self.network if isinstance(self.network, ClipFaces) else None
        self.source = {"path": path, "kind": kind, "fingerprint": fingerprint(self.network.state_dict().items())}
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """Returns unit rows float32 (B, F) of images (B, 3, H, W) in [0, 1]."""
        with torch.no_grad():
            rows: Tensor = self.network(image)
        return rows


def _built(settings: dict[str, Any]) -> BackboneFaces:
    """Returns the network of a module's settings, its weights still random."""
    channels, side = int(settings["in_channels"]), int(settings["image_size"])
    network = build_backbone(
        settings["backbone"],
        0,
        image_size=side,
        in_channels=channels,
        stem=settings["stem"],
        kwargs=settings["backbone_kwargs"],
    )
    expected = dict(zip(("mean", "std"), normalisation(network), strict=True))
    colours = [averaged_for_grey(settings.get(name) or expected[name], channels) for name in ("mean", "std")]
    return BackboneFaces(network, side, *colours)


def _is_timm(folder: Path) -> bool:
    from synfer.foundation.json_file import read_json

    config = folder / "config.json"
    return config.is_file() and "architecture" in read_json(config, "config")


def _timm(path: str) -> BackboneFaces:
    source = find_backbone(path)
    assert source is not None  # a folder
    network = build_backbone(
        source.architecture, 0, image_size=224, stem="native", kwargs=source.arguments, pretrained_path=source.weights
    )
    expected = normalisation(network)
    config: dict[str, Any] = getattr(network, "pretrained_cfg", {}) or {}
    side = int((config.get("input_size") or (3, 224, 224))[-1])
    return BackboneFaces(network, side, source.mean or expected[0], source.std or expected[1])
