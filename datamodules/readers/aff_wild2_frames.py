"""Frames of Aff-Wild2's videos with one annotation file a video: what all lists of the ABAW competitions share."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from datamodules.au_tables.au_source import AUColumn, AUScale, AUSource
from datamodules.readers.listed_pictures import ListedPicture, ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.expressions import LABEL_SPACES

IMAGES = "cropped_aligned"
EARLY: dict[Split, str] = {"train": "Training_Set", "val": "Validation_Set"}
"""Folders of the splits in 2020."""
LATER: dict[Split, str] = {"train": "Train_Set", "val": "Validation_Set"}
"""Folders of the splits from ABAW3 on."""
UNKNOWN_AFFECT = -5.0
"""Valence or arousal of a frame that nobody has rated."""

_KEY = "data.reader.init_args"
_FRAME = re.compile(r"(\d+)\.(?:jpe?g|png)", re.IGNORECASE)
_SECOND_PERSON = re.compile(r"_(?:left|right)$")


@dataclass(frozen=True)
class Annotation:
    """What one line says of its frame.

    Attributes:
        expression: canonical name; None = it says none.
        affect: valence and arousal, NaN where one is not known; None = both.
        units: action unit → 0 or 1, those that are known; None = none is.
        left_out: why the frame is not read by the rules of the data set; None = it is.
    """

    expression: str | None = None
    affect: tuple[float, float] | None = None
    units: Mapping[str, float] | None = None
    left_out: str | None = None


class AffWild2FramesReader(ListedPicturesReader):
    """Finds annotations and frames, and joins them by the numbers of the frames; a subclass reads the lines.

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

    release_space = LABEL_SPACES["basic7"]
    splits = ("train", "val")

    sets: ClassVar[Mapping[str, Mapping[Split, str]]]
    """Name of a release's folder → what holds each split in it: a folder, or one file."""

    def __init__(
        self,
        root: str,
        every: int = 1,
        annotations: str | None = None,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        if every < 1:
            raise ValueError(f"{_KEY}.every: found {every}, expected at least 1")
        self._every, self._annotations = every, annotations
        super().__init__(root, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        self._images = self._root / IMAGES
        if not self._images.is_dir():
            raise self._missing(f"folder {IMAGES}")
        if self._annotations is None:
            bases = [
                self._root,
                *sorted(path for path in self._root.iterdir() if path.is_dir() and path.name != IMAGES),
            ]
        else:
            below = self._root / self._annotations
            bases = [below if below.is_dir() else Path(self._annotations)]
        found = [(base / name, parts) for base in bases for name, parts in self.sets.items() if (base / name).is_dir()]
        if not found:
            raise self._missing(f"folder {' or '.join(self.sets)}")
        if len(found) > 1:
            raise ValueError(
                f"{_KEY}.root: found the annotations {' and '.join(str(path) for path, _ in found)}, expected those of "
                f"one release ({_KEY}.annotations says the folder in which they lie)"
            )
        folder, parts = found[0]
        self._lists: dict[Split, Path] = {split: folder / part for split, part in parts.items()}
        for path in self._lists.values():
            if not path.exists():
                raise self._missing(f"{'file' if path.suffix else 'folder'} {path}")

    @abstractmethod
    def _columns(self, first: str) -> Sequence[str]:
        """Returns what the first line of an annotation file names, or raises a ValueError."""

    @abstractmethod
    def _annotation(self, line: str, columns: Sequence[str]) -> Annotation:
        """Returns what a line says, or raises a ValueError: "found …, expected …"."""

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        listing = Listing()
        for path in sorted(self._lists[split].glob("*.txt")):
            first, *lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
            try:
                columns = self._columns(first)
                frames = self._frames(path.stem)
            except ValueError as error:
                bad.add(f"{path}: {error}")
                continue
            listing.units_source = listing.units_source or units_source(columns)
            while lines and not lines[-1].strip():
                lines.pop()
            for number, line in enumerate(lines, start=1):
                try:
                    annotation = self._annotation(line, columns)
                except ValueError as error:
                    bad.add(f"{path}, line {number + 1}: {error}")
                    continue
                self._add(listing, path.stem, number, annotation, frames)
            beyond = sum(number > len(lines) for number in frames)
            if beyond:
                listing.excluded["frames without a line of annotation"] += beyond
        return listing

    def _add(
        self, listing: Listing, video: str, number: int, annotation: Annotation, frames: Mapping[int, Path]
    ) -> None:
        """Adds a frame, or counts why it is left out."""
        if number not in frames:
            listing.excluded["frames without a detected face"] += 1
        elif (number - 1) % self._every:
            listing.excluded["further frames of the videos"] += 1
        elif annotation.left_out is not None:
            listing.excluded[annotation.left_out] += 1
        else:
            frame = frames[number]
            identity = frame.relative_to(self._images).as_posix()
            group = _SECOND_PERSON.sub("", video)
            said = annotation.expression
            listing.pictures.append(
                ListedPicture(frame, said, identity, group=group, affect=annotation.affect, units=annotation.units)
            )

    def _frames(self, video: str) -> dict[int, Path]:
        """Returns the frames of a video by their numbers.

        Raises:
            ValueError: it has no folder.
        """
        folder = self._images / video
        if not folder.is_dir():
            raise ValueError(f"found no folder {folder}, expected the frames of the video")
        matches = ((_FRAME.fullmatch(path.name), path) for path in sorted(folder.iterdir()))
        return {int(match[1]): path for match, path in matches if match}


def frame_number(name: str) -> int | None:
    """Returns the number of a frame by the name of its file, from 1; None = no frame."""
    match = _FRAME.fullmatch(name)
    return int(match[1]) if match else None


def names_of_units(words: Sequence[str]) -> list[str]:
    """Returns the action units that a header names.

    Raises:
        ValueError: another word, or a unit twice.
    """
    names = [word.strip().upper() for word in words]
    strange = [name for name in names if name not in ACTION_UNITS]
    if strange or not names or len(set(names)) < len(names):
        found = f"'{strange[0]}'" if strange else f"'{','.join(names)}'"
        raise ValueError(f"found {found} in the first line, expected names of action units such as AU12, each once")
    return names


def units_in(cells: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Returns the action units that are known, 0 or 1 by name: −1 is not known, and never absent.

    Raises:
        ValueError: another number of cells, or something else in one.
    """
    if len(cells) != len(names):
        raise ValueError(f"found {len(cells)} action units, expected {len(names)}: {', '.join(names)}")
    known = {}
    for name, cell in zip(names, cells, strict=True):
        if cell.strip() not in ("0", "1", "-1", "0.0", "1.0", "-1.0"):
            raise ValueError(f"found {name} '{cell.strip()}', expected 0, 1 or −1 where it is not known")
        if float(cell) >= 0:
            known[name] = float(cell)
    return known


def units_source(columns: Sequence[str]) -> AUSource | None:
    """Returns what the action units among the columns are: presence, as people saw it; None where there are none."""
    units = tuple(AUColumn(name, name, AUScale("presence")) for name in columns if name in ACTION_UNITS)
    return AUSource("Aff-Wild2, annotators", units, format="aff_wild2") if units else None
