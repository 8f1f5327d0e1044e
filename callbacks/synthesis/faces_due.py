"""Whether faces are due, asked of all ranks together, so that they make them in the same steps."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer

_LOOKS = 8
"""How often the ranks ask each other between two batches of faces: each time costs a message."""


def steps_between_looks(batch_size: int, max_reuse: float, synthetic_per_step: float) -> int:
    """Returns after how many training steps the ranks ask each other, at least 1; the same on all of them.

    Args:
        batch_size: faces that a rank makes at a time.
        max_reuse: mean uses of a face.
        synthetic_per_step: faces of the pool that a rank trains on in a step.
    """
    return max(1, int(batch_size * max_reuse / (_LOOKS * max(synthetic_per_step, 1e-9))))


def all_make_faces(trainer: Trainer, pl_module: LightningModule, due: float | None, batch_size: int) -> bool:
    """Whether a batch of faces is due, on this rank alone or, of several, in the mean; then every open one makes one.

    Ranks wait for each other in every step. If each made faces when its own pool asks for them, a vote that discards
    other shares on each of them would have some rank make faces, and all others wait, in nearly every step.

    A collective where there are several ranks.

    Args:
        trainer: of the run.
        pl_module: on the device of the collective.
        due: faces that are due on this rank; None = it may make no more.
        batch_size: faces that a rank makes at a time.
    """
    if trainer.world_size == 1:
        return due is not None and due >= batch_size
    mine = [0.0, 0.0] if due is None else [due, 1.0]
    kind = torch.float32 if pl_module.device.type == "mps" else torch.float64
    total = trainer.strategy.reduce(torch.tensor(mine, dtype=kind, device=pl_module.device), reduce_op="sum")
    faces, ranks = total.tolist()  # type: ignore[union-attr]
    return bool(ranks > 0 and faces >= batch_size * ranks)
