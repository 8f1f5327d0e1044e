"""ExpW, the Expression in-the-Wild data set."""

from __future__ import annotations

import math
from typing import ClassVar

from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import ListedPicture, ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from synfer.faces.expressions import LABEL_SPACES

CODES = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Expression by code, from 0."""

_COLUMNS = "image name, face id, top, left, right, bottom, confidence and label"


class ExpWReader(ListedPicturesReader):
    """Reads ExpW (Zhang, Luo, Loy and Tang 2018), seven expressions, faces cut out by its boxes.

    Layout: ``label/label.lst`` with lines of image name, face id, top, LEFT, RIGHT, bottom, confidence and label, and
    ``image/origin/<name>``. A picture may show several faces: each is a row of its own. Codes: 0 anger, 1 disgust, 2
    fear, 3 happy, 4 sad, 5 surprise, 6 neutral. 91,793 faces without an official split: all of them are "train";
    ``data.folds`` or ``data.val_fraction`` hold some out, the faces of a photograph together. For research alone; it
    says nothing of who is shown. It cannot be tried here: it is read in its layout alone, made of drawn faces.

    Args:
        root: folder with ``label`` and ``image``.
        min_confidence: of the face detector; faces below are left out and counted.
        label_space: as ``ListedPicturesReader``.
        image_size: as there; needed, for boxes have many sizes.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: ``label/label.lst`` or ``image/origin`` is missing.
        ValueError: a confidence that is no number.
    """

    title = "ExpW (label/label.lst and image/origin)"
    release_space = LABEL_SPACES["basic7"]
    splits = ("train",)
    published: ClassVar = {"train": published("ExpW")["all"]}

    def __init__(
        self,
        root: str,
        min_confidence: float = -math.inf,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        if math.isnan(min_confidence):
            raise ValueError("data.reader.init_args.min_confidence: found nan, expected a number")
        self._min_confidence = min_confidence
        super().__init__(root, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        self._file, self._images = self._root / "label" / "label.lst", self._root / "image" / "origin"
        if not self._file.is_file():
            raise self._missing("file label/label.lst")
        if not self._images.is_dir():
            raise self._missing("folder image/origin")

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        listing = Listing()
        for number, line in enumerate(self._file.read_text(encoding="utf-8").splitlines(), start=1):
            where, words = f"{self._file}, line {number}", line.split()
            if not words:
                continue
            try:
                name, face, *numbers = words
                top, left, right, bottom = (int(word) for word in numbers[:4])
                confidence, code = float(numbers[4]), int(numbers[5])
                whole = len(numbers) == 6
            except (ValueError, IndexError):
                whole = False
            if not whole:
                bad.add(f"{where}: found '{line}', expected {_COLUMNS}")
            elif not 0 <= code < len(CODES):
                bad.add(f"{where}: found the label {code}, expected 0 to {len(CODES) - 1}")
            elif confidence < self._min_confidence:
                listing.excluded[f"confidence below {self._min_confidence:g}"] += 1
            else:
                box = (left, top, right, bottom)
                listing.pictures.append(ListedPicture(self._images / name, CODES[code], f"{name}#{face}", box, name))
        return listing
