"""Whether a classifier sees faces that lie as those of its training did."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from datamodules.rows.alignment import Alignment
from datamodules.rows.alignment_record import AlignmentRecord, alignment_record, in_words, lie_alike
from lightning_modules.trainer_access import data_of


def alignment_of_run(trainer: Trainer | None) -> AlignmentRecord | None:
    """Returns how the faces of a run are aligned; None where its data module does not say."""
    data = data_of(trainer)
    settings = getattr(data, "alignment", None)
    return alignment_record(settings, data.image_size) if isinstance(settings, Alignment) else None


def tell_of_other_alignment(trainer: Trainer | None, network: Any, who: str) -> None:
    """Warns in one line where a run shows a classifier faces that lie otherwise than those of its training.

    Nothing is said of a network that does not know how its faces lay: timm's, CLIP's, and those of older files.

    Args:
        trainer: of the run.
        network: with ``face_alignment``, the record of its training.
        who: where it comes from, for the line: "guidance.guide 'path'".
    """
    trained, shown = getattr(network, "face_alignment", None), alignment_of_run(trainer)
    if trained is not None and shown is not None and not lie_alike(trained, shown):
        rank_zero_warn(
            f"{who}: found a classifier whose training faces were {in_words(trained)}, and faces of this run that are "
            f"{in_words(shown)} (data.alignment), expected both alike: they are shown to it as they are"
        )
