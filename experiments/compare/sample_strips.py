"""Pictures that runs wrote (sample grids, confusion matrices), made small enough to lie in a report.

A report is passed on, so real faces that a classifier got wrong are not in it: they stay in the run's folder.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from experiments.compare.groups import Group

MAX_SIDE = 420
"""Pixels of the longer side in the report."""

MAX_PICTURES = 36
"""So many pictures in one report: at most about 40 KB each."""


@dataclass(frozen=True)
class Strip:
    """Pictures of one group.

    Attributes:
        label: the group's label.
        run: the run that they are from.
        pictures: (file name, ``data:`` address of a JPEG, width, height in pixels) of the newest picture of each kind.
    """

    label: str
    run: str
    pictures: tuple[tuple[str, str, int, int], ...]


def sample_strips(groups: Iterable[Group]) -> tuple[list[Strip], list[str]]:
    """Returns the pictures of each group's first run that has any, and one line for what was left out or unreadable."""
    strips: list[Strip] = []
    warnings: list[str] = []
    room, left_out = MAX_PICTURES, 0
    for group in groups:
        run = next((run for run in group.runs if run.samples or (run.misclassified and run.may_be_shown)), None)
        if run is None:
            continue
        pictures: list[tuple[str, str, int, int]] = []
        wrong = run.misclassified if run.may_be_shown else ()
        for path in [*newest_of_each_kind(run.samples), *wrong]:
            if len(pictures) >= room:
                left_out += 1
                continue
            try:
                name = f"misclassified, {path.stem}" if path in wrong else path.name
                pictures.append((name, *_embedded(path)))
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                warnings.append(f"picture '{path}' cannot be read ({type(error).__name__}), left out")
        room -= len(pictures)
        if pictures:
            strips.append(Strip(group.label, run.name, tuple(pictures)))
    if left_out:
        warnings.append(f"pictures left out of the report, which holds {MAX_PICTURES} at most: {left_out}")
    return strips, warnings


def newest_of_each_kind(paths: Iterable[Path]) -> list[Path]:
    """Returns of ``grid-step0100.png``, ``grid-step0200.png`` and ``confusion_val.png`` the last two.

    Names without their numbers are kinds, and the greatest number is the newest.
    """
    newest: dict[str, tuple[tuple[int, ...], Path]] = {}
    for path in sorted(paths):
        kind = re.sub(r"\d+", "", path.stem)
        numbers = tuple(int(digits) for digits in re.findall(r"\d+", path.stem))
        if kind not in newest or numbers >= newest[kind][0]:
            newest[kind] = (numbers, path)
    return [path for _, path in newest.values()]


def _embedded(path: Path) -> tuple[str, int, int]:
    with Image.open(path) as opened:
        opened.thumbnail((MAX_SIDE, MAX_SIDE))
        picture = opened.convert("RGBA")
    # Charts may be transparent with dark text, so their ground must be white on a dark page as well.
    ground = Image.new("RGB", picture.size, "white")
    ground.paste(picture, mask=picture.getchannel("A"))
    with io.BytesIO() as file:
        ground.save(file, "JPEG", quality=82)
        encoded = base64.b64encode(file.getvalue()).decode()
    return f"data:image/jpeg;base64,{encoded}", ground.width, ground.height
