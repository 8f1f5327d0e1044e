"""Reading all splits of a data set for a look at them: one that is not there is told, as is all that is said of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import get_args

from datamodules.au_tables.join import join_action_units
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers.reader import Reader, Split
from datamodules.rows.alignment import align_table
from datamodules.rows.sample_table import SampleTable

SYNTHETIC = "synthetic"
"""What the rows of ``data.synthetic_reader`` are called beside the splits."""


@dataclass
class SplitsRead:
    """What there was to read.

    Attributes:
        tables: name of the split → its rows, in the order train, val, test, synthetic.
        missing: name of a split that cannot be read → why.
        said: name of the split → warnings and notes of its reader, such as another number of pictures than published.
    """

    tables: dict[str, SampleTable] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)


_SIDE = 112
"""Of aligned faces where ``data.image_size`` is that of a model, which there is none of here."""


def read_splits(data: ExpressionDataModule) -> SplitsRead:
    """Reads the splits as the reader gives them, before folds, subsets and dropped duplicates.

    Args:
        data: data module; its table of action units is joined as in a run.

    Raises:
        ValueError: none can be read; one line with the reason of the first, and the names of the others.
    """
    found = SplitsRead()
    side = data.image_size or _SIDE
    if data.alignment.is_on:
        data.reader.fit_size(side)
        for reader in (data.reader, data.synthetic_reader):
            if reader is not None and data.alignment.kind == "landmarks":
                reader.want_landmarks()
    action_units = None if data.au_table is None else data.au_table.open()
    wanted: list[tuple[str, Reader, Split]] = [(split, data.reader, split) for split in get_args(Split)]
    if data.synthetic_reader is not None:
        wanted.append((SYNTHETIC, data.synthetic_reader, "train"))
    for name, reader, split in wanted:
        joined = None if name == SYNTHETIC else action_units
        with _collected() as said:
            try:
                table = reader.read(split)
                if joined is not None:
                    table, line = join_action_units(table, joined)
                    said.append(line)
                if data.alignment.is_on and (name != SYNTHETIC or data.alignment.synthetic == "align"):
                    table = align_table(table, data.alignment, side)
                found.tables[name] = table
            except (FileNotFoundError, KeyError, ValueError) as error:
                found.missing[name] = " ".join(str(error.args[0] if error.args else error).split())
        found.said[name] = list(dict.fromkeys(said))
    if not found.tables:
        first, reason = next(iter(found.missing.items()))
        others = [name for name in found.missing if name != first]
        raise ValueError(f"split '{first}': {reason} (and nothing of {', '.join(others)} can be read)")
    return found


_OF_PROGRAMS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)
"""Warnings that say nothing of the data."""


class _Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one line."""
        self._lines.append(record.getMessage())


@contextmanager
def _collected() -> Iterator[list[str]]:
    """Yields a list that takes the warnings and the notes of a reader in place of the terminal."""
    lines: list[str] = []
    logger, handler = logging.getLogger("lightning.pytorch.utilities.rank_zero"), _Lines(lines)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
        lines += [str(one.message) for one in caught if not issubclass(one.category, _OF_PROGRAMS)]
