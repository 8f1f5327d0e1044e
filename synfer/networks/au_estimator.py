"""A network that estimates the intensity of action units in a face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.faces.action_units import action_unit_indices
from synfer.foundation.file_reading import reading
from synfer.foundation.json_file import read_json
from synfer.foundation.module_file import (
    CONFIG_FILE,
    KIND,
    WEIGHTS_FILE,
    missing_file,
    write_folder,
)
from synfer.foundation.safetensors_file import read_safetensors
from synfer.networks.backbone import build_backbone, normalisation
from synfer.networks.on_faces import OnFaces

_FILE_KIND = "au_estimator"
_KEYS = ("au_names", "backbone", "image_size")


class ActionUnitNetwork(OnFaces):
    """A timm backbone with one output per action unit.

    Stored as a folder of ``model.safetensors`` and ``config.json`` (``au_names``, ``backbone``, ``image_size``, and
    ``backbone_kwargs`` where there are any; ``kind``): :meth:`save` writes it, :meth:`load` reads it. Action units go
    by name, so an estimator may know any part of ours in any order.

    Args:
        au_names: names of the A outputs, e.g. ["AU12", "AU6"].
        backbone: name of a timm network.
        image_size: side in pixels that the network works on; images of another size are resized.
        backbone_kwargs: further arguments of that network.

    Raises:
        ValueError: no action unit, one twice, one of an unknown name, or a network that timm cannot build.
    """

    def __init__(
        self,
        au_names: list[str],
        backbone: str = "resnet18",
        image_size: int = 48,
        backbone_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if not au_names or len(set(au_names)) < len(au_names):
            raise ValueError(f"AU estimator: found au_names {au_names}, expected at least one, each once")
        action_unit_indices(au_names)
        network = build_backbone(backbone, len(au_names), image_size=image_size, kwargs=backbone_kwargs)
        super().__init__(*normalisation(network))
        self.config: dict[str, Any] = {
            "au_names": list(au_names),
            "backbone": backbone,
            "image_size": image_size,
            "backbone_kwargs": dict(backbone_kwargs or {}),
        }
        self.au_names = tuple(au_names)
        self.image_size = image_size
        self.backbone = network

    def logits(self, image: Tensor) -> Tensor:
        """Returns (B, A) for images (B, 3, H, W) in [0, 1]; their sigmoid is the intensity."""
        return self.backbone(self.prepare(image))

    def forward(self, image: Tensor) -> Tensor:
        """Returns intensities in [0, 1], float32 (B, A), for images (B, 3, H, W) in [0, 1]."""
        return self.logits(image).float().sigmoid()

    def loss(self, image: Tensor, au: Tensor) -> Tensor:
        """Returns the mean binary cross-entropy against intensities (B, A) in [0, 1]; NaN (unknown) counts nothing."""
        known = ~torch.isnan(au)
        losses = F.binary_cross_entropy_with_logits(
            self.logits(image).float(), torch.where(known, au, 0.0), reduction="none"
        )
        return (losses * known).sum() / known.sum().clamp_min(1)

    def save(self, folder: str | Path) -> None:
        """Writes the estimator into a folder, made if missing."""
        write_folder(Path(folder), _FILE_KIND, self.config, self.state_dict())

    @classmethod
    def load(cls, folder: str | Path) -> ActionUnitNetwork:
        """Reads an estimator for use: evaluation mode, gradients off.

        Raises:
            FileNotFoundError: the folder or one of its files is missing.
            ValueError: the files do not describe an estimator.
        """
        folder = estimator_folder(folder)
        config = read_config(folder)
        with reading("AU estimator", folder, f"{WEIGHTS_FILE} and {CONFIG_FILE} that fit each other"):
            weights = read_safetensors(folder / WEIGHTS_FILE, "AU estimator")
            estimator = cls(**config)
            estimator.load_state_dict(weights)
        return estimator.eval().requires_grad_(False)


def estimator_folder(path: str | Path) -> Path:
    """Returns the folder that a path means: itself, or what a run that trained an estimator left in its run folder."""
    path = Path(path)
    inside = path / _FILE_KIND
    return inside if missing_file(path) is not None and inside.is_dir() else path


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads and checks the description of an estimator, without its weights.

    Args:
        folder: of the estimator, or of the run that trained it.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: no JSON, a key too many or too few, or an unknown action unit.
    """
    folder = estimator_folder(folder)
    if (name := missing_file(folder)) is not None:
        raise FileNotFoundError(f"AU estimator '{folder}': found no {name}, expected a folder with one")
    config = read_json(folder / CONFIG_FILE, "AU estimator", f"an object with {', '.join(_KEYS)}")
    if config.get(KIND) == _FILE_KIND:  # older folders do not say it
        config.pop(KIND)
    found = set(config)
    if not set(_KEYS) <= found <= {*_KEYS, "backbone_kwargs"}:
        raise ValueError(f"AU estimator '{folder}': {CONFIG_FILE} has {sorted(found)}, expected {', '.join(_KEYS)}")
    with reading("AU estimator", folder, "au_names as AU12"):
        action_unit_indices(config["au_names"])
    return config
