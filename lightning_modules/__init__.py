"""What is trained, and what judges labels: wiring, loss and logging; the networks and the maths are synfer's.

The classes are imported on first use, so that naming one does not load the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_CLASSES = {
    "ActionUnitEstimator": "action_unit_estimator",
    "Captioner": "captioner",
    "DistilledGenerator": "distilled_generator",
    "ExpressionClassifier": "classifier",
    "ExpressionGenerator": "generator",
    "FacePretraining": "pretraining",
    "FewShot": "few_shot",
    "LabelAnnotator": "annotator",
    "LabelEvaluation": "label_evaluation",
    "Labeller": "labeller",
    "NeighbourProbe": "neighbour_probe",
    "Relabeller": "relabeller",
    "SemanticAugmenter": "augmenter",
    "ZeroShot": "zero_shot",
}

__all__ = [
    "ActionUnitEstimator",
    "Captioner",
    "DistilledGenerator",
    "ExpressionClassifier",
    "ExpressionGenerator",
    "FacePretraining",
    "FewShot",
    "LabelAnnotator",
    "LabelEvaluation",
    "Labeller",
    "NeighbourProbe",
    "Relabeller",
    "SemanticAugmenter",
    "ZeroShot",
]


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name)
