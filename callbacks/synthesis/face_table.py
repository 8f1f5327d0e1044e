"""Some of the synthetic faces that a classifier is trained on, with what was asked and what the vote said."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.recording.wandb_run import WandbRun
from callbacks.synthesis.synthesis_callback import SynthesisCallback
from synfer.pictures.captioned_grid import FaceColumns, save_captioned_grid
from synfer.synthesis.faces import Faces


@dataclass(frozen=True)
class _Row:
    face: Tensor
    sample_id: int
    intended: str
    final: str
    confidence: float
    kept: bool
    votes: dict[str, str]


class FaceTable(SynthesisCallback):
    """Keeps a few faces of each expression and shows them once, at the end of training, also where it was stopped.

    ``samples/synthetic_faces.png`` is the picture for everyone: a row per intended expression, the final label under
    each face, in brackets where the vote discarded it. W&B gets the table ``synthesis/faces`` with image, intended
    label, each voter's label, final label and kept or not. Faces are drawn evenly from all that rank 0 made in this
    attempt (reservoir sampling, Vitter 1985, Algorithm R). Must come after the callback that votes.

    Args:
        faces: how many, divided evenly among the expressions (at least one of each).
    """

    def __init__(self, faces: int = 36) -> None:
        super().__init__(enabled=True)
        self.faces = faces
        self._rows: dict[str, list[_Row]] = {}
        self._seen: dict[str, int] = {}
        self._label_space: tuple[str, ...] = ()
        self._random = random.Random(0)
        self._is_shown_here = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learns whether this rank shows anything."""
        self._is_shown_here = trainer.is_global_zero

    def on_faces(self, faces: Faces) -> None:
        """Keeps some of the finished faces."""
        if not self._is_shown_here:
            return
        self._label_space = faces.label_space
        room = max(1, self.faces // len(faces.label_space))
        for index, label in enumerate(faces.label.tolist()):
            name = faces.label_space[label]
            kept = self._rows.setdefault(name, [])
            self._seen[name] = self._seen.get(name, 0) + 1
            place = len(kept) if len(kept) < room else self._random.randrange(self._seen[name])
            if place < room:
                kept[place : place + 1] = [self._row(faces, index)]

    def _row(self, faces: Faces, index: int) -> _Row:
        names = faces.label_space
        confidence, final = faces.soft_label[index].max(0)
        votes = {}
        for path, probabilities in faces.votes.items():
            probability, vote = probabilities[index].max(0)
            votes[voter_name(path)] = f"{names[int(vote)]} {float(probability):.2f}"
        return _Row(
            faces.images[index].cpu().clone(),
            faces.request.sample_ids[index],
            names[int(faces.label[index])],
            names[int(final)],
            float(confidence),
            bool(faces.kept[index]),
            votes,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes picture and table."""
        self._show(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes picture and table of a run that failed or was stopped: its faces may say why."""
        self._show(trainer)

    def _show(self, trainer: Trainer) -> None:
        rows = [row for name in self._label_space for row in self._rows.get(name, [])]
        if not rows:
            return
        names = [name for name in self._label_space if self._rows.get(name)]
        faces = [torch.stack([row.face for row in self._rows[name]]) for name in names]
        captions = [[row.final if row.kept else f"({row.final})" for row in self._rows[name]] for name in names]
        columns = FaceColumns("final label", faces, captions)
        path = Path(trainer.default_root_dir) / "samples" / "synthetic_faces.png"
        save_captioned_grid([columns], names, path)
        voters = list(dict.fromkeys(voter for row in rows for voter in row.votes))
        table = {
            "sample_id": [row.sample_id for row in rows],
            "intended": [row.intended for row in rows],
            **{f"vote of {voter}": [row.votes.get(voter, "") for row in rows] for voter in voters},
            "final": [row.final for row in rows],
            "confidence": [round(row.confidence, 4) for row in rows],
            "kept": [row.kept for row in rows],
        }
        for logger in trainer.loggers:
            if isinstance(logger, WandbRun):
                logger.log_faces("synthesis/faces", [row.face for row in rows], table)


def voter_name(path: str) -> str:
    """Returns the part of a voter's path that tells it from others: ``runs/judge/checkpoints/last.ckpt`` → judge."""
    parts = [part for part in Path(path).parts if part != "checkpoints"]
    return parts[-2] if len(parts) > 1 and Path(path).suffix == ".ckpt" else Path(path).stem
