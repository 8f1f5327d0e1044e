"""Captions of rows that come without: templates with the name of the expression, or without it."""

from __future__ import annotations

import numpy as np

from datamodules.rows.sample_table import UNLABELLED, SampleTable
from synfer.faces.captions import captions_for, captions_without_expression
from synfer.foundation.counter_based_random import keys_of


def template_captions(
    table: SampleTable, mention_expression: bool = True, rows: np.ndarray | None = None
) -> np.ndarray:
    """Returns a caption of each row, str (N,), chosen by its sample id; of an unlabelled row one that names nothing.

    Args:
        table: the rows.
        mention_expression: whether captions name the expression of labelled rows.
        rows: int64 (N,), for which of them; None = all.
    """
    label, sample_id = table.label, table.sample_id
    if rows is not None:
        label, sample_id = label[rows], sample_id[rows]
    keys = keys_of(sample_id.tolist())
    named = label != UNLABELLED if mention_expression else np.zeros(len(label), dtype=bool)
    some, others = np.flatnonzero(named), np.flatnonzero(~named)
    captions = np.empty(len(label), dtype=object)
    captions[some] = captions_for([table.label_space[code] for code in label[some].tolist()], keys[some])
    captions[others] = captions_without_expression(keys[others])
    return np.array(captions.tolist())
