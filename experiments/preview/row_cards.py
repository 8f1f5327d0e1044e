"""Rows of a table as cards: the face, its label, and all else that the table knows of it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from datamodules.rows.alignment import AlignedImages
from datamodules.rows.grey_or_colour import as_rgb
from datamodules.rows.images import Box, FileImages
from datamodules.rows.sample_table import UNLABELLED, SampleTable
from synfer.faces.affect import AFFECT
from synfer.pictures.sample_cards import SampleCard

_STRONGEST = 3
Points = list[tuple[float, float]]
_LONGEST = 320  # pixels of a whole picture that is kept: it is shown small


def card_of(table: SampleTable, row: int) -> SampleCard:
    """Returns the card of one row.

    Args:
        table: rows of one split.
        row: number of the row.
    """
    face = as_rgb(table.images.batch(np.array([row])))[0].permute(1, 2, 0).numpy()
    code = int(table.label[row])
    lines = []
    points, outline = Points(), Points()
    whole, box = None, None
    images = table.images
    source = images.source if isinstance(images, AlignedImages) else images
    found = source.place(row)[1] if isinstance(source, FileImages) else None
    if found is not None:
        lines.append(f"box {found[0]},{found[1]} to {found[2]},{found[3]}")
    if isinstance(images, AlignedImages):
        outline = _corners(images.matrices[row])
        known = np.empty((0, 2)) if table.landmarks is None else table.landmarks[row]
        points = [(float(x), float(y)) for x, y in known[np.isfinite(known).all(1)]]
        lines.append("aligned" if len(outline) else "no face found")
        whole, box, points, outline = _shrunk(images.whole(row), found, points, outline)
    elif found is not None and isinstance(source, FileImages):
        whole, box, _, _ = _shrunk(source.whole(row), found, [], [])
    if table.group is not None:
        lines.append(f"of {table.group[row]}")
    told = [str(values[row]) for values in table.attributes.values() if values[row]]
    lines += [", ".join(told)] if told else []
    lines += _ratings(table, row) + _action_units(table, row)
    lines.append(str(table.sample_id[row]))
    return SampleCard(
        face=face,
        title="unlabelled" if code == UNLABELLED else table.label_space[code],
        shares=_shares(table, row),
        lines=lines,
        whole=whole,
        box=box,
        points=points,
        outline=outline,
        is_synthetic=table.is_synthetic,
    )


def _shares(table: SampleTable, row: int) -> list[tuple[str, float]]:
    """Returns the largest shares of a soft label; [] where it is one class, or no label at all."""
    shares = table.soft_label[row]
    if table.label[row] == UNLABELLED or shares.max() >= 0.999:
        return []
    largest = np.argsort(-shares, kind="stable")[:_STRONGEST]
    return [(table.label_space[code], float(shares[code])) for code in largest if shares[code] >= 0.005]


def _ratings(table: SampleTable, row: int) -> list[str]:
    """Returns valence and arousal in one line, a question mark for one that is not known; none without any."""
    if table.affect is None or not np.isfinite(table.affect[row]).any():
        return []
    values = ("?" if np.isnan(value) else f"{value:+.2f}" for value in table.affect[row])
    return [", ".join(f"{name} {value}" for name, value in zip(AFFECT, values, strict=True))]


def _action_units(table: SampleTable, row: int) -> list[str]:
    """Returns the strongest action units, one in a line."""
    if table.au is None or not np.isfinite(table.au[row]).any():
        return []
    values = np.nan_to_num(table.au[row], nan=-1.0)
    strongest = [place for place in np.argsort(-values, kind="stable")[:_STRONGEST] if values[place] > 0]
    return [f"{table.au_names[place]} {values[place]:.2f}" for place in strongest] or ["no AU acts"]


def _corners(matrix: np.ndarray) -> Points:
    """Returns the corners of an aligned face in its picture, in turn; [] where it is not aligned."""
    if np.isnan(matrix).any():
        return []
    corners = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]) @ matrix.T
    return [(float(x), float(y)) for x, y in corners]


def _shrunk(
    picture: np.ndarray, box: Box | None, points: Points, outline: Points
) -> tuple[np.ndarray, Box | None, Points, Points]:
    """Returns a picture no larger than it needs to be, as RGB, and box, points and outline in it."""
    small = Image.fromarray(picture).convert("RGB")
    width, height = small.size
    small.thumbnail((_LONGEST, _LONGEST))
    across, down = small.width / width, small.height / height
    points, outline = ([(x * across, y * down) for x, y in some] for some in (points, outline))
    if box is not None:
        left, top, right, bottom = box
        box = round(left * across), round(top * down), round(right * across), round(bottom * down)
    return np.array(small), box, points, outline
