"""RAF-DB, compound expressions: two at once, as soft labels."""

from __future__ import annotations

from typing import ClassVar

from datamodules.readers.known_sets import published
from datamodules.readers.raf_db import RAFDBReader

COMPOUND_CODES = {
    1: ("happy", "surprise"),  # Happily Surprised
    2: ("happy", "disgust"),
    3: ("sad", "fear"),
    4: ("sad", "anger"),
    5: ("sad", "surprise"),
    6: ("sad", "disgust"),
    7: ("fear", "anger"),
    8: ("fear", "surprise"),
    9: ("anger", "surprise"),
    10: ("anger", "disgust"),
    11: ("disgust", "surprise"),
}
"""The two expressions of each code of the label file, from 1, in the order of its name."""


class RAFDBCompoundReader(RAFDBReader):
    """Reads RAF-DB compound (Li, Deng and Du 2017): faces of two expressions, each half of the soft label.

    Layout: as ``RAFDBReader``, under ``compound``. Codes: 1 happily surprised, 2 happily disgusted, 3 sadly fearful,
    4 sadly angry, 5 sadly surprised, 6 sadly disgusted, 7 fearfully angry, 8 fearfully surprised, 9 angrily surprised,
    10 angrily disgusted, 11 disgustedly surprised. Splits: train 3,162, test 792, told by the file's name. The paper
    speaks of twelve classes, the label file has eleven; lists of other data sets count otherwise.

    The soft label gives both expressions a half. ``label``, by which classes are counted and accuracy is told, is the
    first-named of the two: a tie broken by the name of the class, no more. Faces of which one expression is outside the
    label space are left out and counted. On request, for research alone. It cannot be tried here: it is read in its
    layout alone, made of drawn faces.

    Args:
        root: folder of the data set, or its ``compound``.
        images: "aligned", or "original" cut out by the boxes of the release.
        attributes: as ``RAFDBReader``.
        label_space: as ``ListedPicturesReader``.
        image_size: as there; needed with ``images`` "original".
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the label file or the folder of images is missing.
        ValueError: a setting is not known.
    """

    title = "RAF-DB compound (compound/EmoLabel/list_patition_label.txt and Image/)"
    part = "compound"
    codes: ClassVar = COMPOUND_CODES
    published: ClassVar = published("RAF-DB compound")
