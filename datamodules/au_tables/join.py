"""Action units of a table joined to the rows of a data set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datamodules.au_tables.au_table import AUTable, DescribedTable
from datamodules.rows.sample_table import SampleTable


def join_action_units(rows: SampleTable, table: AUTable) -> tuple[SampleTable, str]:
    """Returns the rows with the action units of a table in place of their own, and what to say of it.

    What the table does not know of a row is NaN; action units that the rows have no column for are left out.

    Raises:
        ValueError: no row has an action unit there, or the rows have a column for none of its action units.
    """
    used = [name for name in table.names if name in rows.au_names]
    if not used:
        raise ValueError(
            f"data.au_table: found action units {', '.join(table.names)}, expected some of {', '.join(rows.au_names)}"
        )
    ids = rows.sample_id.tolist()
    try:
        found = table.read(ids)[:, [table.names.index(name) for name in used]]
    except ValueError as error:
        raise ValueError(f"data.au_table: {rows.split} split of {len(rows)} rows: {error}") from error
    unknown = np.flatnonzero(np.isnan(found).all(axis=1))
    if len(unknown) == len(rows):
        raise ValueError(
            f"data.au_table: found no action unit of any of the {len(rows)} {rows.split} rows, expected some"
        )
    au = np.full((len(rows), len(rows.au_names)), np.nan, dtype=np.float32)
    au[:, [rows.au_names.index(name) for name in used]] = found
    said = f"data.au_table: {len(used)} action units of {len(rows) - len(unknown)} of {len(rows)} {rows.split} rows"
    if len(unknown):
        said += f"; unknown for {len(unknown)}, the first of them '{ids[unknown[0]]}'"
    record = None
    if isinstance(table, DescribedTable):
        without_row = len(rows) - int(table.has(ids).sum())
        without_face = len(unknown) - without_row
        if len(unknown):
            said += f" ({without_row} have no row there, {without_face} a row without a face)"
        known = len(rows) - len(unknown)
        record = {**table.source.record(), "known": known, "without_row": without_row, "without_face": without_face}
    left_out = [name for name in table.names if name not in rows.au_names]
    if left_out:
        said += f"; left out {', '.join(left_out)}, which no model knows"
    over = table.never_read() if isinstance(table, DescribedTable) else []
    if over:
        said += f"; {len(over)} rows there are of no picture read so far, the first of them '{over[0]}'"
    return replace(rows, au=au, au_source=record), said
