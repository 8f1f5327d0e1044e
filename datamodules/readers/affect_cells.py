"""Valence and arousal as tables and text files write them."""

from __future__ import annotations

import math

from synfer.faces.affect import AFFECT


def affect_cells(cells: tuple[object, object], unknown: float | None = None) -> tuple[float, float]:
    """Returns valence and arousal of a face, each NaN where its cell says that nobody knows.

    Args:
        cells: of valence and of arousal: numbers, texts, or None. Nothing, blanks and NaN are unknown.
        unknown: the number that a data set writes where it does not know; None = it leaves such cells empty.

    Raises:
        ValueError: something else than a number in [-1, 1].
    """
    valence, arousal = (_number(name, cell, unknown) for name, cell in zip(AFFECT, cells, strict=True))
    return valence, arousal


def affect_columns(valence: str | None, arousal: str | None) -> tuple[str, ...]:
    """Returns the names of both columns, or none.

    Raises:
        ValueError: one without the other.
    """
    if (valence is None) != (arousal is None):
        lone, other = ("valence", "arousal") if arousal is None else ("arousal", "valence")
        raise ValueError(
            f"data.reader.init_args.{lone}_column: found '{valence or arousal}' and no {other}_column, expected both"
        )
    return () if valence is None or arousal is None else (valence, arousal)


def is_known(affect: tuple[float, float] | None) -> bool:
    """Whether one of the two numbers is."""
    return affect is not None and not all(map(math.isnan, affect))


def _number(name: str, cell: object, unknown: float | None) -> float:
    text = "" if cell is None else str(cell).strip()
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.inf
    if math.isnan(value) or value == unknown:
        return math.nan
    if not -1 <= value <= 1:
        other = "nothing" if unknown is None else f"{unknown:g}"
        raise ValueError(f"found the {name} '{text}', expected a number in [-1, 1], or {other} where it is not known")
    return value
