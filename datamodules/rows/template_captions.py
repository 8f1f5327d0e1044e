"""Captions of rows that come without: templates with the name of the expression, or without it."""

from __future__ import annotations

import numpy as np

from datamodules.rows.sample_table import UNLABELLED, SampleTable
from synfer.faces.captions import captions_for, captions_without_expression
from synfer.foundation.counter_based_random import keys_of


def template_captions(table: SampleTable, mention_expression: bool = True) -> np.ndarray:
    """Returns a caption of each row, str (N,), chosen by its sample id; of an unlabelled row one that names nothing.

    Args:
        table: N rows.
        mention_expression: whether captions name the expression of labelled rows.
    """
    return np.array(captions_of_rows(table, np.arange(len(table)), mention_expression))


def captions_of_rows(table: SampleTable, chosen: np.ndarray, mention_expression: bool = True) -> list[str]:
    """Returns the same of some rows alone: the captions of a million rows fill a quarter of a gigabyte."""
    label = table.label[chosen]
    keys = keys_of(table.sample_id[chosen].tolist())
    named = label != UNLABELLED if mention_expression else np.zeros(len(label), dtype=bool)
    rows, others = np.flatnonzero(named), np.flatnonzero(~named)
    captions = np.empty(len(label), dtype=object)
    captions[rows] = captions_for([table.label_space[code] for code in label[rows].tolist()], keys[rows])
    captions[others] = captions_without_expression(keys[others])
    found: list[str] = captions.tolist()
    return found
