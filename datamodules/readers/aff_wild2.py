"""Aff-Wild2, videos of faces annotated frame by frame, read as frames: the expressions of the ABAW competitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from datamodules.readers.aff_wild2_frames import EARLY, IMAGES, LATER, AffWild2FramesReader, Annotation
from synfer.faces.expressions import canonical_expression

OTHER, UNKNOWN = "other", -1
"""The eighth code from ABAW3 on, none of ours; the code of a frame that is not annotated."""


class AffWild2Reader(AffWild2FramesReader):
    """Reads the expressions of Aff-Wild2 (Kollias and Zafeiriou 2019) as frames: ABAW of 2020, and ABAW3 and later.

    Layout: ``cropped_aligned/<video>/00001.jpg`` (112×112 pixels, numbered from 1; the file of a frame without a
    detected face is missing), and one text file a video, ``EXPR_Set/{Training,Validation}_Set/<video>.txt`` (2020),
    ``EXPR_Classification_Challenge/{Train,Validation}_Set/<video>.txt`` (ABAW3 to 5) or
    ``EXPR_Recognition_Challenge/…`` (ABAW6 and later), in ``root`` or a folder of it. Its first line
    names the expressions, by whose place the codes below it count: Neutral, Anger, Disgust, Fear, Happiness, Sadness,
    Surprise, and from ABAW3 on Other. Line i below it is frame i, found by its number. Left out and counted: −1 (not
    annotated), Other, frames without a file, files without a line. Splits: train and val; labels of the test videos
    are kept back. ``group`` is the video, the same for both people of one (``…_left``, ``…_right``).

    On request, for research alone. It cannot be tried here: it is read in its layout alone, made of drawn faces. How
    many frames there are depends on the release and the face detector: no number is expected. Valence and arousal are
    read by ``AffWild2AffectReader``, action units by ``AffWild2UnitsReader``, all three at once by
    ``AffWild2MTLReader``.

    Args:
        root: folder with ``cropped_aligned`` and the annotations.
        every: each so many-th frame of a video is read, from the first: neighbours are nearly one picture.
        annotations: folder with the lists, below ``root`` or anywhere; None = the only one in ``root`` and its folders.
        label_space: as ``ListedPicturesReader``.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the frames or the annotations are missing.
        ValueError: several releases of the annotations are there, or a setting is out of range.
    """

    sets: ClassVar = {"EXPR_Set": EARLY, "EXPR_Classification_Challenge": LATER, "EXPR_Recognition_Challenge": LATER}
    title = f"Aff-Wild2 ({IMAGES} and {' or '.join(sets)})"

    def _columns(self, first: str) -> Sequence[str]:
        """Returns the expression of each code, as the first line of an annotation file names them."""
        words = [word.strip() for word in first.split(",")]
        try:
            names = [OTHER if word.lower() == OTHER else canonical_expression(word) for word in words]
        except ValueError as error:
            raise ValueError(f"found the first line '{first}' ({error}), expected the names of the codes") from None
        if len(set(names)) < max(len(names), 2):
            raise ValueError(f"found the first line '{first}', expected the names of the codes, each once")
        return names

    def _annotation(self, line: str, columns: Sequence[str]) -> Annotation:
        expression = expression_of(line, columns)
        if expression is None:
            return Annotation(left_out="frames that are not annotated (−1)")
        if expression == OTHER:
            return Annotation(left_out="annotated as other")
        return Annotation(expression)


def expression_of(cell: str, names: Sequence[str]) -> str | None:
    """Returns the name of a code, "other" among them; None for −1, where there is none.

    Raises:
        ValueError: another code.
    """
    try:
        code = int(cell.strip())
    except ValueError:
        code = len(names)
    if not UNKNOWN <= code < len(names):
        raise ValueError(f"found '{cell}', expected a code from 0 to {len(names) - 1}, or −1 where there is none")
    return None if code == UNKNOWN else names[code]
