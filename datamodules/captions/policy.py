"""Captions of rows as a run wants them: written ones joined, expressions not named, action units said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datamodules.captions.caption_table import read_caption_table
from datamodules.captions.settings import CaptionSettings
from datamodules.rows.sample_table import SampleTable
from datamodules.rows.template_captions import template_captions
from synfer.faces.au_sentences import au_sentence
from synfer.faces.expression_words import names_expression, without_expression
from synfer.foundation.counter_based_random import keys_of


def apply_policy(rows: SampleTable, settings: CaptionSettings) -> tuple[SampleTable, list[str]]:
    """Returns the rows with the captions that the settings ask for, and what to say of them.

    At the defaults these are the rows themselves. What a row gets depends on the row alone.

    Raises:
        FileNotFoundError, ValueError: the table of captions cannot be used, or has none of these rows.
    """
    if settings.is_default:
        return rows, []
    said = []
    own = template_captions(rows) if rows.caption is None else rows.caption
    from_template = np.full(len(rows), rows.caption is None)
    captions = own.astype(object)
    if settings.path is not None:
        matched, line = _join(captions, rows, settings.path)
        from_template &= ~matched
        said.append(line)
    if not settings.mention_expression:
        said.append(_take_out(captions, from_template, rows))
    if settings.action_units:
        said.append(_say_units(captions, rows))
    return replace(rows, caption=captions), said


def _join(captions: np.ndarray, rows: SampleTable, path: str) -> tuple[np.ndarray, str]:
    """Puts the captions of a table in; returns which rows it has."""
    try:
        written = read_caption_table(path)
    except ValueError as error:
        raise ValueError(f"data.captions.path: {error}") from error
    matched = np.array([name in written for name in rows.sample_id.tolist()], dtype=bool)
    if not matched.any() and rows.split == "train":  # it may be of training rows alone
        raise ValueError(
            f"data.captions.path '{path}': found captions of none of the {len(rows)} {rows.split} rows (its first is "
            f"of '{next(iter(written), '')}', the first row is '{rows.sample_id[0]}'), expected their sample ids"
        )
    for row in np.flatnonzero(matched).tolist():
        captions[row] = written[rows.sample_id[row]]
    said = f"data.captions.path: captions of {matched.sum()} of {len(rows)} {rows.split} rows"
    if not matched.all():
        first = rows.sample_id[np.flatnonzero(~matched)[0]]
        said += f"; {(~matched).sum()} rows are not in it, the first of them '{first}', and keep their own"
    return matched, said


def _take_out(captions: np.ndarray, from_template: np.ndarray, rows: SampleTable) -> str:
    """Takes the expression out of every caption; of one that would be empty a template's place is taken."""
    plain = template_captions(rows, mention_expression=False)
    rewritten, replaced = 0, []
    for row in range(len(rows)):
        if from_template[row]:
            captions[row] = str(plain[row])
        elif names_expression(captions[row]):
            left = without_expression(captions[row])
            rewritten += left is not None
            if left is None:
                replaced.append(row)
            captions[row] = str(plain[row]) if left is None else left
    untouched = len(rows) - int(from_template.sum()) - rewritten - len(replaced)
    said = (
        f"data.captions.mention_expression=false: of {len(rows)} {rows.split} captions {untouched} named no expression,"
        f" {rewritten} were rewritten, {len(replaced)} had nothing else and are templates now"
    )
    if replaced:
        said += f" (the first of them of '{rows.sample_id[replaced[0]]}')"
    return said + (f", {from_template.sum()} are templates without it" if from_template.any() else "")


def _say_units(captions: np.ndarray, rows: SampleTable) -> str:
    """Adds a sentence to the caption of every row with a known action unit."""
    count = 0
    if rows.au is not None:
        keys = keys_of(rows.sample_id.tolist()).tolist()
        columns = (rows.au_source or {}).get("columns", {})  # of a table that says what it holds
        presence = {name for name, column in columns.items() if column["kind"] in ("presence", "probability")}
        for row in np.flatnonzero(~np.isnan(rows.au).all(1)).tolist():
            sentence = au_sentence(rows.au[row], rows.au_names, keys[row], presence)
            captions[row] = f"{str(captions[row]).rstrip(' .')}. {sentence}"
            count += 1
    if not count:
        raise ValueError(
            f"data.captions.action_units=true: found no known action unit of any of the {len(rows)} {rows.split} rows, "
            "expected some (data.au_table)"
        )
    return f"data.captions.action_units: said of {count} of {len(rows)} {rows.split} rows, unknown for the others"
