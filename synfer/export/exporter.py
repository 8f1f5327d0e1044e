"""Whoever gives a trained model to another library: what it must be able to do, and which there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from synfer.foundation.late_import import imported_late

EXPORTERS = {
    "lora": "synfer.export.lora:LoRAExporter",
    "au_adapter": "synfer.export.au_adapter:AUAdapterExporter",
    "pipeline": "synfer.export.pipeline:PipelineExporter",
    "onnx": "synfer.export.onnx_graph:OnnxExporter",
    "torchscript": "synfer.export.torchscript_graph:TorchScriptExporter",
}
"""What is exported → "module:class" of its :class:`Exporter`, imported when it is asked for."""


NumberFormat = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class ExportSettings:
    """How an export is written, and what its card says of where the model comes from.

    Attributes:
        dtype: number format of the weights, by its name in torch.
        training_command: the command that trained the model; None = not known.
    """

    dtype: NumberFormat = "float32"
    training_command: str | None = None


class NothingToExportError(ValueError):
    """A module has not what is to be exported, or it is of no use without the rest."""


class Exporter(Protocol):
    """Writes a part of a trained module in the format of another library.

    Attributes:
        kind: of the modules that it takes: "diffusion" or "classifier".
    """

    kind: str

    def __init__(self, settings: ExportSettings = ...) -> None: ...

    def export(self, module: Any, folder: Path) -> None:
        """Writes the export into a folder, made if missing, with a card (README.md).

        Args:
            module: a trained module of this kind, averaged weights in place.
            folder: an empty one, or one that is not there yet.

        Raises:
            NothingToExportError: the module has not what is to be exported; nothing is written.
            ValueError: a weight is not finite in the number format.
        """
        ...

    def load(self, folder: Path) -> Any:
        """Returns what an export holds, as the other library's object or as weights by name.

        Raises:
            FileNotFoundError: nothing there.
            ValueError: damaged, or weights missing, unknown or surplus.
        """
        ...


class TrainedGenerator(Protocol):
    """What an exporter of generators asks of one."""

    hparams: Mapping[str, Any]
    synthesiser: Any

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits over its weights."""
        ...


class TrainedClassifier(Protocol):
    """What an exporter of classifiers asks of one: averaged weights in place, evaluation mode, no gradients.

    Attributes:
        hparams: its settings by name.
        label_space: names of its K classes.
        image_size: side in pixels that its network works on.
        in_channels: 3, or 1 for the mean over the colours.
        flip_tta: whether it averages over an image and its mirror image.
        mean: per channel, (1, C, 1, 1), for images in [0, 1].
        std: likewise.
        backbone: normalised images (B, C, S, S) → logits (B, K).
        codec: None = it reads pixels.
        face_alignment: how the faces of its training were aligned: "settings", "image_size" and "points", five (x, y)
            as shares of the side; {} = they were not, None = not known.
    """

    hparams: Mapping[str, Any]
    label_space: tuple[str, ...]
    image_size: int
    in_channels: int
    flip_tta: bool
    mean: Any
    std: Any
    backbone: Any
    codec: Any
    face_alignment: Mapping[str, Any] | None

    def predict_probabilities(self, image: Any) -> Any:
        """Returns probabilities float32 (B, K) of images (B, 3, H, W) in [0, 1]."""
        ...

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits over its weights."""
        ...


def make_exporter(what: str, settings: ExportSettings) -> Exporter:
    """Returns the exporter of one entry of :data:`EXPORTERS`.

    Raises:
        ValueError: there is none of that name.
    """
    if what not in EXPORTERS:
        raise ValueError(f"--what: found '{what}', expected one of {', '.join([*EXPORTERS, 'all'])}")
    exporter: Exporter = imported_late(EXPORTERS[what])(settings)
    return exporter
