"""The same faces again and again while a model learns to make them, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Trainer

from synfer.synthesis.over_ranks import synthesise_over_ranks
from synfer.synthesis.request import SynthesisRequest
from synfer.synthesis.synthesiser import Synthesiser

_BATCH = 100  # faces at a time


def log_face_grid(
    synthesiser: Synthesiser, columns: int, seed: int, trainer: Trainer, expressions: Sequence[str] | None = None
) -> None:
    """Makes faces and saves them in ``samples/``, a row per expression (a collective).

    Args:
        synthesiser: the module that is trained.
        columns: faces per expression.
        seed: of the run.
        trainer: the module's.
        expressions: a row each; None = all that it knows.
    """
    from synfer.pictures.sample_grid import save_sample_grid

    rows = tuple(synthesiser.label_space if expressions is None else expressions)
    names = [name for name in rows for _ in range(columns)]
    request = SynthesisRequest.from_expressions(
        names, range(len(names)), seed, synthesiser.sampling, synthesiser.au_names
    )
    images = synthesise_over_ranks(synthesiser, request, [], _BATCH)["images"]
    if trainer.is_global_zero:
        path = Path(trainer.default_root_dir) / "samples" / f"grid-step{trainer.global_step:07d}.png"
        save_sample_grid(images, rows, columns, path)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("samples/grid", [str(path)])
