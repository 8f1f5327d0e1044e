"""A classifier as an ONNX graph, run by ONNX Runtime and others without torch."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synfer.export.classifier_card import write_classifier_card
from synfer.export.classifier_graph import PixelsToProbabilities, check_against, check_classifier, graph_metadata
from synfer.export.exporter import ExportSettings, TrainedClassifier
from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import one_line
from synfer.foundation.json_file import write_json
from synfer.foundation.optional_package import optional_package

GRAPH, LABELS = "classifier.onnx", "labels.json"
_DIMENSIONS = ("faces", "height", "width")


class OnnxExporter:
    """Exports a classifier with its preprocessing: uint8 faces of any size in, probabilities out.

    What it gives is compared with torch's by ONNX Runtime before it is kept.

    Args:
        settings: number format, and what the card says.
    """

    kind = "classifier"

    def __init__(self, settings: ExportSettings = ExportSettings()) -> None:  # noqa: B008 (frozen)
        self.settings = settings

    def export(self, module: TrainedClassifier, folder: Path) -> None:
        """Writes ``classifier.onnx``, ``labels.json`` and the card.

        Raises:
            NothingToExportError: a classifier of latents.
            ValueError: a package of the extra "onnx" is missing, the network cannot be drawn as a graph, or it gives
                other probabilities.
        """
        check_classifier(module, "onnx", self.settings)
        onnx = optional_package("onnx", "onnx", "--what onnx")
        optional_package("onnxscript", "onnx", "--what onnx")
        runtime = optional_package("onnxruntime", "onnx", "--what onnx")
        graph = _drawn(PixelsToProbabilities(module).eval(), int(module.image_size))
        metadata = graph_metadata(module)
        text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
        onnx.helper.set_model_props(graph, text)
        for value in (*graph.graph.input, *graph.graph.output):
            names = [_DIMENSIONS[0]] if value.name != "image" else [_DIMENSIONS[0], "", *_DIMENSIONS[1:]]
            for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
                if name:
                    dimension.dim_param = name
        onnx.checker.check_model(graph)
        content = graph.SerializeToString()
        session = _session(runtime, content)
        worst = check_against(module, lambda faces: _run(session, faces), "onnx")
        with atomic_write(folder / GRAPH) as partial:
            partial.write_bytes(content)
        write_json(folder / LABELS, metadata)
        write_classifier_card(folder, module, "onnx", self.settings, worst)

    def load(self, folder: Path) -> Any:
        """Returns the ``onnxruntime.InferenceSession`` of an export.

        Raises:
            FileNotFoundError: no graph there.
            ValueError: damaged, or ONNX Runtime is not installed.
        """
        path = folder / GRAPH
        if not path.is_file():
            raise FileNotFoundError(f"onnx '{folder}': found no {GRAPH}, expected what --what onnx wrote")
        runtime = optional_package("onnxruntime", "onnx", "onnx")
        try:
            return _session(runtime, path.read_bytes())
        except Exception as error:  # its own types
            raise ValueError(f"onnx '{path}': {one_line(error)[:200]}, expected a whole graph") from error


def _drawn(module: PixelsToProbabilities, side: int) -> Any:
    """Returns the ONNX model of a module, whatever the number and size of its faces."""
    dynamic: Any = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 3, side + 13, side + 2, dtype=torch.uint8)
    told = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes={"image": {0: dynamic, 2: dynamic, 3: dynamic}},
                input_names=["image"],
                output_names=["probabilities"],
                verbose=False,
            )
    except Exception as error:  # torch's own types, with pages of advice
        said = one_line(error.__cause__ or error)[:200]
        raise ValueError(f"onnx: this network cannot be drawn as a graph ({said})") from error
    finally:
        logging.getLogger("torch.onnx").setLevel(told)
    assert program is not None
    return program.model_proto


def _session(runtime: Any, content: bytes) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what it has against a graph arrives as an error
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(session: Any, faces: Tensor) -> Tensor:
    return torch.from_numpy(session.run(None, {"image": faces.numpy()})[0])
