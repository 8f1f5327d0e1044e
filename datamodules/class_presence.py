"""Classes of the label space that no face of a split shows."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn

from datamodules.rows.sample_table import UNLABELLED, SampleTable


def warn_of_absent_classes(training: SampleTable, validation: SampleTable) -> None:
    """Says which classes real faces teach nothing about, and which are not scored.

    Args:
        training: rows in use; without any expression nothing is said.
        validation: rows that the run is scored on.
    """
    if (training.label == UNLABELLED).all():
        return
    absent = [name for name, count in training.class_counts().items() if not count]
    if absent:
        left = ",".join(name for name in training.label_space if name not in absent)
        rank_zero_warn(
            f"found no training face of {', '.join(absent)}, which real faces teach nothing about: expected some of "
            f"each expression, or a label space of the others alone (data.reader.init_args.label_space and "
            f"model.label_space '[{left}]')"
        )
    unscored = [n for n, count in validation.class_counts().items() if not count and n not in absent]
    if unscored and not (validation.label == UNLABELLED).all():
        rank_zero_warn(
            f"found no validation face of {', '.join(unscored)}, whose recall is not measured: expected some of each "
            "expression (more faces, or a larger data.val_fraction)"
        )
