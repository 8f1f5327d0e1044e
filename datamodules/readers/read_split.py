"""Reading one split for a run: action units of a table, captions as wanted, and a line on what was left out."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from datamodules.au_tables.au_table import AUTable
from datamodules.au_tables.join import join_action_units
from datamodules.captions.policy import apply_policy
from datamodules.captions.settings import CaptionSettings
from datamodules.readers.reader import Reader, Split
from datamodules.rows.sample_table import SampleTable


def read_split(
    reader: Reader, split: Split, au_table: AUTable | None = None, captions: CaptionSettings | None = None
) -> SampleTable:
    """Returns the rows of one split.

    Args:
        reader: the data set.
        split: which.
        au_table: action units in place of the reader's; None = its own.
        captions: what captions may say; None = they stay as they are.

    Raises:
        ValueError: the split cannot be used, or none of its rows is in the table of action units or of captions.
    """
    table = reader.read(split)
    if table.report.excluded or table.report.skipped:
        excluded = [f"{count} {reason}" for reason, count in table.report.excluded.items()]
        skipped = [f"{len(table.report.skipped)} bad: {'; '.join(table.report.skipped[:3])}"]
        left_out = "; ".join(excluded + (skipped if table.report.skipped else []))
        rank_zero_info(f"{split}: {len(table)} rows used of {table.report.read} read; left out: {left_out}")
    if au_table is not None:
        table, said = join_action_units(table, au_table)
        rank_zero_info(said)
    if captions is not None:
        table, lines = apply_policy(table, captions)
        for line in lines:
            rank_zero_info(line)
    return table


def read_split_if_there(reader: Reader, split: Split) -> list[SampleTable]:
    """Reads a split, where there is one, to compare the training rows with; a warning where it cannot be read."""
    if not reader.has_split(split):
        return []
    try:
        return [read_split(reader, split)]
    except (FileNotFoundError, KeyError, ValueError) as error:
        # Nobody asked for this split, and many data sets keep it back; whoever asks for it gets the error itself.
        rank_zero_warn(f"training was not compared with the {split} split: {error}")
        return []
