"""AffectNet's release of 2021: numbered images with an annotation file each."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.readers.affect_cells import affect_cells
from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import Landmarks, ListedPicture, ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from synfer.faces.expressions import EXPRESSIONS
from synfer.faces.face_alignment import five_of_68

CODES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt", "none", "uncertain", "no face")
"""Expression by code, from 0; the last three are no expressions."""

UNKNOWN_AFFECT = -2.0
"""Valence or arousal of a face that nobody has rated."""


def expression_of(code: str) -> str | None:
    """Returns the name of a code of AffectNet as its files write it ("3"); None = not known."""
    return CODES[int(code)] if code.isdecimal() and int(code) < len(CODES) else None


class AffectNetReader(ListedPicturesReader):
    """Reads the AffectNet release of 2021 (4 GB; Mollahosseini, Hasani and Mahoor 2017), eight expressions.

    Layout: ``train_set/images/<number>.jpg`` (224×224 pixels) with ``train_set/annotations/<number>_exp.npy``, and
    ``val_set/`` alike. The files hold text, also where it is a number. Codes: 0 neutral, 1 happy, 2 sad, 3 surprise, 4
    fear, 5 disgust, 6 anger, 7 contempt; 8 none, 9 uncertain and 10 no face are left out and counted. Splits: train
    287,651, val 3,999, which papers call the test split; with ``label_space`` basic7 283,901 and 3,500. On request, for
    research alone; it does not say who is shown. It cannot be tried here: it is read in its layout alone, made of drawn
    faces. Valence and arousal: ``<number>_val.npy`` and ``<number>_aro.npy``, texts of numbers in [-1, 1], −2 where
    they are not known; copies without these files have none. Points, for ``data.alignment``: ``<number>_lnd.npy``, x
    and y in turn of 68 points in pixels of the picture; a picture without that file has none. The older release of 120
    GB is read by ``AffectNetTablesReader``: its scores differ from this one's.

    Args:
        root: folder with ``train_set`` and ``val_set``.
        affect: whether valence and arousal are read, two more files a picture.
        label_space: as ``ListedPicturesReader``.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: ``train_set`` or ``val_set`` is missing.
    """

    title = "AffectNet's release of 2021 (train_set/images, train_set/annotations, val_set/…)"
    release_space = EXPRESSIONS
    splits = ("train", "val")
    published: ClassVar = published("AffectNet, eight expressions")

    def __init__(
        self,
        root: str,
        affect: bool = True,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        self._affect = affect
        super().__init__(root, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        for split in self.splits:
            for part in ("images", "annotations"):
                if not (self._root / f"{split}_set" / part).is_dir():
                    raise self._missing(f"folder {split}_set/{part}")

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        folder, listing = self._root / f"{split}_set", Listing()
        images = {path.stem: path for path in (folder / "images").iterdir() if path.suffix.lower() in (".jpg", ".png")}
        labels = {path.name.removesuffix("_exp.npy"): path for path in (folder / "annotations").glob("*_exp.npy")}
        rated = self._affect and next((folder / "annotations").glob("*_val.npy"), None) is not None
        for stem in sorted(images.keys() | labels.keys(), key=_number_first):
            if stem not in labels or stem not in images:
                lost, wanted = ("label", f"{stem}_exp.npy") if stem in images else ("image", f"{stem}.jpg")
                bad.add(f"{folder}: found no {lost} of '{stem}', expected {wanted}")
                continue
            code = _text(labels[stem])
            expression = None if code is None else expression_of(code)
            if expression is None:
                bad.add(f"{labels[stem]}: found {code!r}, expected a code from 0 to {len(CODES) - 1}")
            elif expression not in EXPRESSIONS:
                listing.excluded[f"annotated as {expression}"] += 1
            else:
                identity = images[stem].relative_to(self._root).as_posix()
                try:
                    affect = _affect_in(folder / "annotations", stem) if rated else None
                except ValueError as error:
                    bad.add(f"{folder / 'annotations'}: '{stem}': {error}")
                    continue
                points = _points(folder / "annotations" / f"{stem}_lnd.npy") if self.wants_landmarks else None
                listing.pictures.append(
                    ListedPicture(images[stem], expression, identity, affect=affect, landmarks=points)
                )
        return listing


def _affect_in(folder: Path, stem: str) -> tuple[float, float]:
    """Returns valence and arousal of one picture, NaN where they are not known.

    Raises:
        ValueError: a file is missing or damaged, or holds no number of the scale.
    """
    cells = [_text(folder / f"{stem}_{kind}.npy") for kind in ("val", "aro")]
    if None in cells:
        raise ValueError(f"found no number in {stem}_{'val' if cells[0] is None else 'aro'}.npy, expected one")
    return affect_cells((cells[0], cells[1]), UNKNOWN_AFFECT)


def _points(path: Path) -> Landmarks | None:
    """Returns five points of the 68 in a file; None where there is no file of 136 numbers."""
    try:
        numbers = np.load(path, allow_pickle=False).astype(np.float64).reshape(-1)
    except (OSError, ValueError, EOFError):
        return None
    return [(float(x), float(y)) for x, y in five_of_68(numbers.reshape(68, 2))] if len(numbers) == 136 else None


def _number_first(stem: str) -> tuple[int, int, str]:
    """Returns a key that sorts 2 before 10, and names after numbers."""
    return (0, int(stem), stem) if stem.isdecimal() else (1, 0, stem)


def _text(path: Path) -> str | None:
    """Returns the only value of a .npy file as text; None = it holds none, or Python objects."""
    try:
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return str(value.reshape(-1)[0]).strip() if value.size == 1 else None
