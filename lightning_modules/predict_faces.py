"""Prediction of whatever makes faces."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from synfer.synthesis.faces import Faces
from synfer.synthesis.hooks import active_hooks
from synfer.synthesis.request import SynthesisRequest
from synfer.synthesis.synthesiser import Synthesiser


def predict_faces(synthesiser: Synthesiser, batch: Any, trainer: Trainer) -> Faces:
    """Makes the faces of one request, with the trainer's hooks; ``SyntheticSetWriter`` writes them.

    Args:
        synthesiser: the module that predicts.
        batch: what the data module gives: a :class:`SynthesisRequest`.
        trainer: the module's.

    Raises:
        ValueError: ``predict`` on real faces.
    """
    if not isinstance(batch, SynthesisRequest):
        raise ValueError("predict of a generator: found real faces, expected data.predict_split=synthesis")
    request = batch.under(synthesiser.sampling, synthesiser.au_names)
    return synthesiser.synthesise(request, active_hooks(trainer.callbacks))  # type: ignore[attr-defined]
