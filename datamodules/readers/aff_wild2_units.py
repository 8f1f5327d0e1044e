"""Aff-Wild2 read as frames: action units of the ABAW competitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from datamodules.readers.aff_wild2_frames import (
    EARLY,
    IMAGES,
    LATER,
    AffWild2FramesReader,
    Annotation,
    names_of_units,
    units_in,
)


class AffWild2UnitsReader(AffWild2FramesReader):
    """Reads which action units act in Aff-Wild2's frames: 0 or 1, never how strongly; its rows have no expression.

    Layout: frames as ``AffWild2Reader``; one text file a video, ``AU_Set/{Training,Validation}_Set/<video>.txt`` (2020:
    AU1, 2, 4, 6, 12, 15, 20, 25) or ``AU_Detection_Challenge/{Train,Validation}_Set/<video>.txt`` (ABAW3 and later:
    AU1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26), whose first line names the units. Line i below it is frame i; −1 is
    not known, and never absent. Left out and counted: frames of which no unit is known, frames without a file, files
    without a line. Splits and ``group`` as there. ``au_source`` says that all is presence.

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

    sets: ClassVar = {"AU_Set": EARLY, "AU_Detection_Challenge": LATER}
    title = f"action units of Aff-Wild2 ({IMAGES} and {' or '.join(sets)})"

    def _columns(self, first: str) -> Sequence[str]:
        return names_of_units(first.split(","))

    def _annotation(self, line: str, columns: Sequence[str]) -> Annotation:
        units = units_in(line.split(","), columns)
        return Annotation(units=units) if units else Annotation(left_out="frames that are not annotated (−1)")
