"""CK+, the extended Cohn-Kanade sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import Landmarks, Listing
from datamodules.readers.people import HeldOutPeople
from datamodules.readers.people_reader import PeopleReader
from datamodules.readers.posed_sequences import PosedSequences
from datamodules.readers.reader import BadSamples, OnBadSample
from synfer.faces.expressions import EXPRESSIONS
from synfer.faces.face_alignment import five_of_68

CODES = ("neutral", "anger", "contempt", "disgust", "fear", "happy", "sad", "surprise")
"""Expression by code, from 0."""


class CKPlusReader(PeopleReader):
    """Reads CK+ (Lucey and others 2010): the last frames of each labelled sequence, and its first one as neutral.

    Layout: ``cohn-kanade-images/S010/001/S010_001_00000014.png`` and ``Emotion/S010/001/S010_001_00000014_emotion.txt``
    with one number ("   3.0000000e+00"); where ``data.alignment`` asks for points of the faces, also
    ``Landmarks/S010/001/S010_001_00000014_landmarks.txt`` with 68 lines of x and y. Codes: 0 neutral, 1 anger,
    2 contempt, 3 disgust, 4 fear, 5 happy, 6 sad, 7 surprise. 327 of 593 sequences of 118 of the people have a label;
    the others are left out and counted. With the settings of papers that are 1,308 pictures. On request, for research
    alone. It cannot be tried here: it is read in its layout alone, made of drawn faces. No official split: folds by
    person, 10 of them as papers do. Frames of one sequence are nearly the same picture, so a random split, as the copy
    "CK+48" invites, has them on both sides.

    Args:
        root: folder with ``cohn-kanade-images`` and ``Emotion``.
        last_frames: of each labelled sequence, as its expression.
        first_as_neutral: whether its first frame is read too, as neutral.
        people: which people are held out.
        label_space: as ``ListedPicturesReader``.
        image_size: as there; needed, for frames have two sizes.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: one of the folders is missing.
        ValueError: a setting is out of range.
    """

    title = "CK+ (cohn-kanade-images and Emotion)"
    release_space = EXPRESSIONS

    def __init__(
        self,
        root: str,
        last_frames: int = 3,
        first_as_neutral: bool = True,
        people: HeldOutPeople = HeldOutPeople(),  # noqa: B008 (frozen)
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        self._frames = PosedSequences(last_frames, first_as_neutral)
        self.all_published = published("CK+, labelled sequences")["all"] * (last_frames + int(first_as_neutral))
        super().__init__(root, people, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        self._images, self._labels = self._root / "cohn-kanade-images", self._root / "Emotion"
        for folder in (self._images, self._labels):
            if not folder.is_dir():
                raise self._missing(f"folder {folder.name}")

    def _list_all(self, bad: BadSamples) -> Listing:
        listing = Listing()
        sequences = sorted(path for path in self._images.glob("*/*") if path.is_dir())
        for sequence in sequences:
            frames = sorted(sequence.glob("*.png"))
            labels = sorted((self._labels / sequence.parent.name / sequence.name).glob("*_emotion.txt"))
            if not labels:
                listing.excluded["frames of sequences without a label"] += len(frames)
                continue
            listing.groups.add(sequence.parent.name)
            if len(labels) > 1:
                bad.add(f"{labels[0].parent}: found {len(labels)} labels, expected one")
            elif (expression := _expression(labels[0])) is None:
                bad.add(f"{labels[0]}: found no code from 0 to {len(CODES) - 1}, expected one number")
            else:
                self._frames.add(listing, sequence, frames, expression, self._images, bad)
        if self.wants_landmarks:
            listing.pictures = [replace(one, landmarks=self._points_of(one.path)) for one in listing.pictures]
        return listing

    def _points_of(self, frame: Path) -> Landmarks | None:
        """Returns five points of the face in a frame; None where there is no file of 68 points."""
        inside = frame.relative_to(self._images)
        try:
            points = np.loadtxt(self._root / "Landmarks" / inside.with_name(f"{frame.stem}_landmarks.txt"))
        except (OSError, ValueError):
            return None
        if points.shape != (68, 2):
            return None
        return [(float(x), float(y)) for x, y in five_of_68(points)]


def _expression(path: Path) -> str | None:
    try:
        code = float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return CODES[int(code)] if code.is_integer() and 0 <= code < len(CODES) else None
