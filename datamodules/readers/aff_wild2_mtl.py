"""Aff-Wild2 read as frames: the multi-task lists of the ABAW competitions, all annotations of a frame in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from datamodules.readers.aff_wild2 import OTHER, expression_of
from datamodules.readers.aff_wild2_frames import (
    IMAGES,
    UNKNOWN_AFFECT,
    AffWild2FramesReader,
    Annotation,
    frame_number,
    names_of_units,
    units_in,
    units_source,
)
from datamodules.readers.affect_cells import affect_cells, is_known
from datamodules.readers.listed_pictures import Listing
from datamodules.readers.reader import BadSamples, Split

EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happy", "sad", "surprise", OTHER)
"""Expression by code, which the list itself does not name."""

UNITS = tuple(f"AU{number}" for number in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
"""Action units in the order of the cells that the list calls "aus"."""

_FIRST = ["image", "valence", "arousal", "expression"]


class AffWild2MTLReader(AffWild2FramesReader):
    """Reads expression, valence, arousal and action units of Aff-Wild2's frames: ABAW3, 4 and 7, MTL challenge.

    Layout: frames as ``AffWild2Reader``; ``MTL_Challenge/train_set.txt`` and ``validation_set.txt`` with the first line
    ``image,valence,arousal,expression,aus`` and lines such as ``12-24/00001.jpg,0.1,-0.2,4,0,0,1,…``: twelve cells
    under "aus", AU1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25 and 26 (a first line that names them is read by its names).
    Codes of expressions: 0 neutral, 1 anger, 2 disgust, 3 fear, 4 happy, 5 sad, 6 surprise, 7 other. Each is masked by
    itself: −5 is an unknown valence or arousal, −1 an unknown expression or unit, and "other" counts as unknown; a row
    needs one that is known. Left out and counted: frames without any, and frames without a file. Splits: train and val,
    told by the file; ``group`` is the video.

    On request, for research alone; read here in its layout alone, made of drawn faces.

    Args:
        root: as ``AffWild2Reader``.
        every: as there.
        annotations: as there.
        label_space: as ``ListedPicturesReader``; frames of an expression outside it are left out and counted.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the frames or the annotations are missing.
        ValueError: several releases of the annotations are there, or a setting is out of range.
    """

    sets: ClassVar = {"MTL_Challenge": {"train": "train_set.txt", "val": "validation_set.txt"}}
    title = f"the multi-task lists of Aff-Wild2 ({IMAGES} and MTL_Challenge)"

    def _columns(self, first: str) -> Sequence[str]:
        """Returns the action units of the list."""
        words = [word.strip().lower() for word in first.split(",")]
        if words[:4] != _FIRST or len(words) < 5:
            raise ValueError(f"found the first line '{first}', expected image,valence,arousal,expression,aus")
        return UNITS if words[4:] == ["aus"] else names_of_units(words[4:])

    def _annotation(self, line: str, columns: Sequence[str]) -> Annotation:
        cells = line.split(",")
        if len(cells) != 4 + len(columns):
            raise ValueError(f"found {len(cells)} cells, expected {4 + len(columns)}: image, valence, arousal, …")
        affect = affect_cells((cells[1], cells[2]), UNKNOWN_AFFECT)
        expression, units = expression_of(cells[3], EXPRESSIONS), units_in(cells[4:], columns)
        if expression == OTHER:
            expression = None
        if expression is None and not units and not is_known(affect):
            return Annotation(left_out="frames of which nothing is known")
        return Annotation(expression, affect, units)

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        path = self._lists[split]
        first, *lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
        try:
            columns = self._columns(first)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        listing, frames_of, seen = Listing(units_source=units_source(columns)), dict[str, Mapping[int, Path]](), set()
        for place, line in enumerate(lines, start=2):
            if not line.strip():
                continue
            name = PurePosixPath(line.split(",")[0].strip())
            video, number = name.parent.as_posix(), frame_number(name.name)
            try:
                if number is None or len(name.parts) != 2:
                    raise ValueError(f"found the image '{name}', expected <video>/00001.jpg")
                if name in seen:
                    raise ValueError(f"found '{name}' a second time, expected each frame once")
                if video not in frames_of:
                    frames_of[video] = self._frames(video)
                annotation = self._annotation(line, columns)
            except ValueError as error:
                bad.add(f"{path}, line {place}: {error}")
                continue
            seen.add(name)
            self._add(listing, video, number, annotation, frames_of[video])
        return listing
