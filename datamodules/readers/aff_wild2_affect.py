"""Aff-Wild2 read as frames: valence and arousal of the ABAW competitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from datamodules.readers.aff_wild2_frames import (
    EARLY,
    IMAGES,
    LATER,
    UNKNOWN_AFFECT,
    AffWild2FramesReader,
    Annotation,
)
from datamodules.readers.affect_cells import affect_cells, is_known
from synfer.faces.affect import AFFECT


class AffWild2AffectReader(AffWild2FramesReader):
    """Reads valence and arousal of Aff-Wild2's frames; its rows have no expression, and nothing is said of action
    units.

    Layout: frames as ``AffWild2Reader``; one text file a video, ``VA_Set/{Training,Validation}_Set/<video>.txt`` (2020)
    or ``VA_Estimation_Challenge/{Train,Validation}_Set/<video>.txt`` (ABAW3 and later), whose first line is
    ``valence,arousal``. Line i below it is frame i, two numbers in [-1, 1]; −5 is not known. Left out and counted:
    frames of which both are not known, frames without a file, files without a line. Splits and ``group`` as there.

    On request, for research alone; read here in its layout alone, made of drawn faces.

    Args:
        root: as ``AffWild2Reader``.
        every: as there.
        annotations: as there.
        label_space: that of the model; no row has an expression.
        image_size: as ``ListedPicturesReader``.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the frames or the annotations are missing.
        ValueError: several releases of the annotations are there, or a setting is out of range.
    """

    sets: ClassVar = {"VA_Set": EARLY, "VA_Estimation_Challenge": LATER}
    title = f"valence and arousal of Aff-Wild2 ({IMAGES} and {' or '.join(sets)})"

    def _columns(self, first: str) -> Sequence[str]:
        names = [word.strip().lower() for word in first.split(",")]
        if sorted(names) != sorted(AFFECT):
            raise ValueError(f"found the first line '{first}', expected valence,arousal")
        return names

    def _annotation(self, line: str, columns: Sequence[str]) -> Annotation:
        cells = line.split(",")
        if len(cells) != len(columns):
            raise ValueError(f"found '{line}', expected two numbers")
        by_name = dict(zip(columns, cells, strict=True))
        affect = affect_cells((by_name["valence"], by_name["arousal"]), UNKNOWN_AFFECT)
        if not is_known(affect):
            return Annotation(left_out="frames that are not annotated (−5)")
        return Annotation(affect=affect)
