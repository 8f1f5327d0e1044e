"""A classifier as other programs run it: pixels of any size in, probabilities out, and nothing to be done before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synfer.export.exporter import ExportSettings, NothingToExportError, TrainedClassifier

TOLERANCE = 1e-4
"""How far a probability of the exported graph may be from torch's."""

INPUT = "uint8, 0…255, RGB, (faces, 3, height, width)"


class PixelsToProbabilities(nn.Module):
    """Cuts the central square of faces, resizes, scales and normalises it, and returns the probabilities.

    The same as ``predict_probabilities`` of the classifier on pixels / 255, with its mirror images where it takes them.

    Args:
        module: a classifier of pixels, averaged weights in place.
        network: its backbone, or what stands for it.
    """

    def __init__(self, module: TrainedClassifier, network: Any | None = None) -> None:
        super().__init__()
        self.network = module.backbone if network is None else network
        self.size = int(module.image_size)
        self.classes = len(module.label_space)  # of one that rates valence and arousal too, the expressions alone
        self.grey = module.in_channels == 1
        self.flip = bool(module.flip_tta)
        # Without an axis for the faces: torch.export takes a size of one there for the size of the batch.
        self.register_buffer("mean", module.mean.detach().clone().reshape(-1, 1, 1))
        self.register_buffer("std", module.std.detach().clone().reshape(-1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """Returns probabilities (B, K) of faces (B, 3, H, W), uint8."""
        image = image.float() / 255
        height, width, count = image.shape[2], image.shape[3], image.shape[0]
        if torch.jit.is_scripting():  # noqa: SIM108 (the compiler drops the other branch of a statement alone)
            side = min(height, width)
        else:  # of sizes that are not known while the graph is drawn
            side = torch.sym_min(height, width)  # type: ignore[assignment]
        top, left = (height - side) // 2, (width - side) // 2
        image = image[:, :, top : top + side, left : left + side]
        if not torch.jit.is_scripting():
            torch._check(image.shape[2] > 0)
            torch._check(image.shape[3] > 0)
        image = F.interpolate(image, [self.size, self.size], mode="bilinear", antialias=True)
        if self.grey:
            image = image.mean(1, keepdim=True)
        image = (image - self.mean) / self.std
        if not self.flip:
            return self.network(image)[:, : self.classes].softmax(1)
        both = self.network(torch.cat([image, image.flip(-1)]))[:, : self.classes].softmax(1)
        return (both[:count] + both[count:]) / 2


def check_classifier(module: TrainedClassifier, what: str, settings: ExportSettings) -> None:
    """Checks that a classifier can be given away as a graph of its own.

    Args:
        module: the classifier.
        what: which export, for errors: "onnx".
        settings: of the export.

    Raises:
        NothingToExportError: it reads the latents of a generator.
        ValueError: another number format than float32.
    """
    if module.codec is not None:
        raise NothingToExportError(
            f"{what}: found a classifier of latents (model.latents_of), which needs a generator's codec, expected one "
            "of pixels"
        )
    if settings.dtype != "float32":
        raise ValueError(f"{what}: found --dtype {settings.dtype}, expected float32 for a classifier")


def graph_metadata(module: TrainedClassifier) -> dict[str, Any]:
    """Returns what a graph says of itself: labels in order, input, alignment in training, fingerprint."""
    space = module.hparams.get("label_space")
    return {
        "kind": "classifier",
        "label_space": space if isinstance(space, str) else "custom",
        "labels": list(module.label_space),
        "input": INPUT,
        "output": "probabilities, float32, (faces, labels)",
        "image_size": int(module.image_size),
        "mirrored": bool(module.flip_tta),
        "alignment": dict(module.face_alignment or {}) or None,
        "fingerprint": module.weights_fingerprint(),
    }


def check_against(module: TrainedClassifier, run: Callable[[Tensor], Tensor], what: str) -> float:
    """Compares an exported graph with the classifier on faces of several sizes and numbers.

    Args:
        module: the classifier.
        run: the graph: uint8 (B, 3, H, W) → probabilities (B, K).
        what: which export, for errors: "onnx".

    Returns:
        The largest difference.

    Raises:
        ValueError: it is above :data:`TOLERANCE`, or the graph takes faces of one size alone.
    """
    side, random = int(module.image_size), torch.Generator().manual_seed(0)
    sizes = ((1, side, side), (3, 2 * side + 5, side + 3), (2, max(8, side // 2), side // 2 + 9))
    worst = 0.0
    for count, height, width in sizes:
        faces = torch.randint(0, 256, (count, 3, height, width), generator=random, dtype=torch.uint8)
        try:
            with torch.no_grad():
                found = run(faces)
        except Exception as error:  # each runtime has its own
            said = " ".join(str(error).split())[:160]
            raise ValueError(f"{what}: the graph takes no faces of the shape {tuple(faces.shape)} ({said})") from error
        with torch.no_grad():
            expected = module.predict_probabilities(faces.float() / 255).cpu()
        worst = max(worst, float((found - expected).abs().max()))
    if not worst <= TOLERANCE:  # also true for NaN
        raise ValueError(
            f"{what}: found probabilities that differ from torch's by up to {worst:.2g}, expected {TOLERANCE}"
        )
    return worst
