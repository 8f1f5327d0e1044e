"""Whether a generator fits the data and the classifier of a mixed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from datamodules.row_record import refuse_seen
from lightning_modules.training_provenance import TrainingProvenance
from synfer.synthesis.synthesiser import Synthesiser


def check_generator_fits(path: str | Path, generator: Synthesiser, datamodule: Any) -> None:
    """Says how faces of another size are fitted in, and refuses a generator that has seen the validation rows.

    Args:
        path: of the generator.
        generator: as it was loaded.
        datamodule: of the run, which has read its rows and opened its pool.

    Raises:
        ValueError: rows that the run holds out (``data.val_fraction``) are among those that it has learned from.
    """
    learned = TrainingProvenance.of_file(path, tuple(generator.label_space)).trained_on
    refuse_seen(datamodule.val_table, learned, f"synthesis.generator '{path}'")
    made, wanted = generator.image_size, datamodule.pool.image_size
    if made > wanted:
        rank_zero_info(f"synthesis: faces of {made} pixels are made and shrunk to {wanted}, the size of the data")
    elif made < wanted:
        rank_zero_warn(
            f"synthesis.generator '{path}': found faces of {made} pixels, enlarged to the {wanted} of the data: their "
            f"blur tells them from real ones; expected --model.image_size {made} (and --data.image_size model), or a "
            f"generator of {wanted}"
        )
