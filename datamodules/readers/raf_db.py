"""RAF-DB, basic expressions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import Landmarks, ListedPicture, ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from datamodules.rows.images import Box
from synfer.faces.expressions import LABEL_SPACES

CODES = {1: "surprise", 2: "fear", 3: "disgust", 4: "happy", 5: "sad", 6: "anger", 7: "neutral"}
"""Codes of the label file, from 1."""

ATTRIBUTES = {
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}
"""Attributes in the order of their lines → values by their codes, from 0, as two public loaders read them."""

_POINTS = 5
_LIST = "list_patition_label.txt"  # as the release spells it


class RAFDBReader(ListedPicturesReader):
    """Reads RAF-DB basic (Li, Deng and Du 2017), seven expressions.

    Layout: ``basic/EmoLabel/list_patition_label.txt`` with lines ``train_00001.jpg 5`` (in some copies the file lies
    beside the folder), ``basic/Image/aligned/train_00001_aligned.jpg`` (100×100 pixels),
    ``basic/Image/original/train_00001.jpg`` and ``basic/Annotation/boundingbox/train_00001_boundingbox.txt``.
    ``basic/Annotation/manual/train_00001_manu_attri.txt``: five points of the face in the original picture (eyes, nose,
    corners of the mouth), a line each, read with ``images`` "original" if ``data.alignment`` asks; then gender, race
    and age by their codes, which are kept as attributes (:data:`ATTRIBUTES`; "unsure" as well) where that folder is
    there.
    Codes: 1 surprise, 2 fear, 3 disgust, 4 happy, 5 sad, 6 anger, 7 neutral. Splits: train 12,271, test 3,068, told by
    the file's name; there is no validation split. On request, for research alone; it says nothing of who is shown. It
    cannot be tried here: it is read in its layout alone, made of drawn faces.

    Copies sorted into folders 1 … 7 are read by ``ImageFolderReader``.

    Args:
        root: folder of the data set, or its ``basic``.
        images: "aligned", or "original" cut out by the boxes of the release.
        attributes: whether gender, race and age of each face are read; None = where ``Annotation/manual`` is there.
        label_space: as ``ListedPicturesReader``.
        image_size: as there; needed with ``images`` "original".
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the label file, the folder of images, or that of wanted attributes is missing.
        ValueError: a setting is not known.
    """

    title = "RAF-DB basic (EmoLabel/list_patition_label.txt and Image/)"
    release_space = LABEL_SPACES["basic7"]
    splits = ("train", "test")
    published: ClassVar = published("RAF-DB basic")
    part: ClassVar[str] = "basic"
    """Folder of the release."""

    codes: ClassVar[Mapping[int, tuple[str, ...]]] = {code: (name,) for code, name in CODES.items()}
    """Code → expressions that a face of it shows, that of its label first."""

    def __init__(
        self,
        root: str,
        images: Literal["aligned", "original"] = "aligned",
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
        attributes: bool | None = None,
    ) -> None:
        if images not in ("aligned", "original"):
            raise ValueError(f"data.reader.init_args.images: found '{images}', expected aligned or original")
        self._images, self._with_attributes = images, attributes
        super().__init__(root, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        base = self._root / self.part if (self._root / self.part).is_dir() else self._root
        lists = [path for path in (base / "EmoLabel" / _LIST, base / _LIST) if path.is_file()]
        if not lists:
            raise self._missing(_LIST)
        self._list_file, self._base = lists[0], base
        if not self._folder.is_dir():
            raise self._missing(f"folder Image/{self._images}")
        self._manual = base / "Annotation" / "manual"
        if self._with_attributes and not self._manual.is_dir():
            raise self._missing("folder Annotation/manual")
        if self._with_attributes is None:
            self._with_attributes = self._manual.is_dir()

    @property
    def _folder(self) -> Path:
        return self._base / "Image" / self._images

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        listing = Listing()
        for number, line in enumerate(self._list_file.read_text(encoding="utf-8").splitlines(), start=1):
            where = f"{self._list_file}, line {number}"
            words = line.split()
            if not words:
                continue
            stem, dot, _ = words[0].rpartition(".")
            official = stem.split("_")[0]
            if len(words) != 2 or not dot or official not in self.splits:
                bad.add(f"{where}: found '{line}', expected 'train_00001.jpg 5' or 'test_0001.jpg 5'")
                continue
            if official != split:
                continue
            shown = self.codes.get(int(words[1])) if words[1].isdecimal() else None
            if shown is None:
                bad.add(f"{where}: found the code '{words[1]}', expected 1 to {len(self.codes)}")
                continue
            self._add(listing, stem, words[0], shown, bad)
        return listing

    def _add(self, listing: Listing, stem: str, name: str, shown: tuple[str, ...], bad: BadSamples) -> None:
        path, box = self._folder / (f"{stem}_aligned.jpg" if self._images == "aligned" else name), None
        if self._images == "original":
            box = _read_box(self._base / "Annotation" / "boundingbox" / f"{stem}_boundingbox.txt", bad)
            if box is None:
                return
        landmarks = None
        if self._images == "original" and self.wants_landmarks:
            landmarks = _read_landmarks(self._base / "Annotation" / "manual" / f"{stem}_manu_attri.txt")
        shares = {expression: 1 / len(shown) for expression in shown} if len(shown) > 1 else None
        told = _read_attributes(self._manual / f"{stem}_manu_attri.txt", bad) if self._with_attributes else {}
        if told is None:
            return
        identity = path.relative_to(self._base).as_posix()
        picture = ListedPicture(path, shown[0], identity, box, shares=shares, attributes=told, landmarks=landmarks)
        listing.pictures.append(picture)


def _read_attributes(path: Path, bad: BadSamples) -> dict[str, str] | None:
    """Returns gender, race and age of a file with five points and three codes, or None after a word to ``bad``.

    A face without a file has none: the list says who belongs to the data set.
    """
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        codes = [int(word) for word in words[-len(ATTRIBUTES) :]]
        if len(words) != _POINTS + len(ATTRIBUTES) or min(codes) < 0:
            raise ValueError
        return {name: values[code] for (name, values), code in zip(ATTRIBUTES.items(), codes, strict=True)}
    except (OSError, ValueError, IndexError) as error:
        why = "cannot be read" if isinstance(error, OSError) else "holds no five points with three known codes"
        bad.add(f"{path}: {why}, expected them and the codes of {', '.join(ATTRIBUTES)}")
        return None


def _read_box(path: Path, bad: BadSamples) -> Box | None:
    """Returns the box of a file with four numbers (left, top, right, bottom), or None after a word to ``bad``."""
    try:
        left, top, right, bottom = (round(float(word)) for word in path.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        why = "cannot be read" if isinstance(error, OSError) else "holds no four numbers"
        bad.add(f"{path}: {why}, expected left, top, right and bottom of the face")
        return None
    return left, top, right, bottom


def _read_landmarks(path: Path) -> Landmarks | None:
    """Returns the five points in the first lines of a file; None where there is no such file, or no points in it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[:5]
        points = [tuple(float(word) for word in line.split()) for line in lines]
    except (OSError, ValueError):
        return None
    return [(point[0], point[1]) for point in points] if [len(point) for point in points] == [2] * 5 else None
