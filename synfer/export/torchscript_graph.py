"""A classifier as a TorchScript file, run by torch alone, from C++ as well, without timm or our code."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from synfer.export.classifier_card import write_classifier_card
from synfer.export.classifier_graph import PixelsToProbabilities, check_against, check_classifier, graph_metadata
from synfer.export.exporter import ExportSettings, TrainedClassifier
from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import one_line
from synfer.foundation.json_file import write_json

GRAPH, LABELS = "classifier.pt", "labels.json"


class TorchScriptExporter:
    """Exports a classifier with its preprocessing: uint8 faces of any size in, probabilities out.

    What it gives is compared with torch's before it is kept. torch calls TorchScript a format of the past; it is there
    for programs that load nothing else.

    Args:
        settings: number format, and what the card says.
    """

    kind = "classifier"

    def __init__(self, settings: ExportSettings = ExportSettings()) -> None:  # noqa: B008 (frozen)
        self.settings = settings

    def export(self, module: TrainedClassifier, folder: Path) -> None:
        """Writes ``classifier.pt`` (with ``labels.json`` inside it as well), ``labels.json`` and the card.

        Raises:
            NothingToExportError: a classifier of latents.
            ValueError: the network cannot be drawn as a graph, or it gives other probabilities.
        """
        check_classifier(module, "torchscript", self.settings)
        metadata = graph_metadata(module)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of its age, and of what a tracer sees in timm's networks
            graph = _drawn(module)
            worst = check_against(module, graph, "torchscript")
            with atomic_write(folder / GRAPH) as partial:
                torch.jit.save(graph, partial, _extra_files={LABELS: json.dumps(metadata)})
        write_json(folder / LABELS, metadata)
        write_classifier_card(folder, module, "torchscript", self.settings, worst)

    def load(self, folder: Path) -> Any:
        """Returns the ``torch.jit.ScriptModule`` of an export: uint8 (B, 3, H, W) → probabilities (B, K).

        Raises:
            FileNotFoundError: no graph there.
            ValueError: damaged.
        """
        path = folder / GRAPH
        if not path.is_file():
            raise FileNotFoundError(f"torchscript '{folder}': found no {GRAPH}, expected what --what torchscript wrote")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.jit.load(path, map_location="cpu").eval()
        except Exception as error:  # its own types
            raise ValueError(f"torchscript '{path}': {one_line(error)[:200]}, expected a whole graph") from error


def _drawn(module: TrainedClassifier) -> Any:
    """Returns the graph: the network as it is traced, the preprocessing as it is written, for faces of any size."""
    network = copy.deepcopy(module.backbone).eval().cpu()
    side = int(module.image_size)
    try:
        traced = torch.jit.trace(network, torch.zeros(2, module.in_channels, side, side), check_trace=False)
        return torch.jit.script(PixelsToProbabilities(module, traced).eval().cpu())
    except Exception as error:  # its own types
        raise ValueError(f"torchscript: this network cannot be drawn as a graph ({one_line(error)[:200]})") from error
