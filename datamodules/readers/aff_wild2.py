"""Aff-Wild2, videos of faces annotated frame by frame, read as frames: the expressions of the ABAW competitions."""

from __future__ import annotations

import re
from pathlib import Path

from datamodules.readers.listed_pictures import ListedPicture, ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from synfer.faces.expressions import LABEL_SPACES, canonical_expression

_KEY = "data.reader.init_args"
_IMAGES = "cropped_aligned"
_SETS: dict[str, dict[Split, str]] = {
    "EXPR_Set": {"train": "Training_Set", "val": "Validation_Set"},
    "EXPR_Classification_Challenge": {"train": "Train_Set", "val": "Validation_Set"},
}
_OTHER, _INVALID = "other", -1
_FRAME = re.compile(r"(\d+)\.(?:jpe?g|png)", re.IGNORECASE)
_SECOND_PERSON = re.compile(r"_(?:left|right)$")


class AffWild2Reader(ListedPicturesReader):
    """Reads the expressions of Aff-Wild2 (Kollias and Zafeiriou 2019) as frames: ABAW of 2020, and ABAW3 and later.

    Layout: ``cropped_aligned/<video>/00001.jpg`` (112×112 pixels, numbered from 1; the file of a frame without a
    detected face is missing), and one text file a video, ``EXPR_Set/{Training,Validation}_Set/<video>.txt`` (2020) or
    ``EXPR_Classification_Challenge/{Train,Validation}_Set/<video>.txt``, in ``root`` or a folder of it. Its first line
    names the expressions, by whose place the codes below it count: Neutral, Anger, Disgust, Fear, Happiness, Sadness,
    Surprise, and from ABAW3 on Other. Line i below it is frame i, found by its number. Left out and counted: −1 (not
    annotated), Other, frames without a file, files without a line. Splits: train and val; labels of the test videos
    are kept back. ``group`` is the video, the same for both people of one (``…_left``, ``…_right``).

    On request, for research alone. It cannot be tried here: it is read in its layout alone, made of drawn faces. How
    many frames there are depends on the release and the face detector: no number is expected. Valence, arousal and
    action units of the set are not read.

    Args:
        root: folder with ``cropped_aligned`` and the annotations.
        every: each so many-th frame of a video is read, from the first: neighbours are nearly one picture.
        annotations: folder with ``EXPR_Set`` or ``EXPR_Classification_Challenge``, below ``root`` or anywhere; None =
            the only one in ``root`` and its folders.
        label_space: as ``ListedPicturesReader``.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the frames or the annotations are missing.
        ValueError: several releases of the annotations are there, or a setting is out of range.
    """

    title = f"Aff-Wild2 ({_IMAGES} and {' or '.join(_SETS)})"
    release_space = LABEL_SPACES["basic7"]
    splits = ("train", "val")

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
        self._images = self._root / _IMAGES
        if not self._images.is_dir():
            raise self._missing(f"folder {_IMAGES}")
        if self._annotations is None:
            bases = [
                self._root,
                *sorted(path for path in self._root.iterdir() if path.is_dir() and path.name != _IMAGES),
            ]
        else:
            below = self._root / self._annotations
            bases = [below if below.is_dir() else Path(self._annotations)]
        found = [(base / name, parts) for base in bases for name, parts in _SETS.items() if (base / name).is_dir()]
        if not found:
            raise self._missing(f"folder {' or '.join(_SETS)}")
        if len(found) > 1:
            raise ValueError(
                f"{_KEY}.root: found the annotations {' and '.join(str(path) for path, _ in found)}, expected those of "
                f"one release ({_KEY}.annotations says the folder in which they lie)"
            )
        folder, parts = found[0]
        self._lists: dict[Split, Path] = {split: folder / part for split, part in parts.items()}
        for path in self._lists.values():
            if not path.is_dir():
                raise self._missing(f"folder {path}")

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        listing = Listing()
        for path in sorted(self._lists[split].glob("*.txt")):
            first, *lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
            try:
                names = _names(first)
                frames = _frames(self._images / path.stem)
            except ValueError as error:
                bad.add(f"{path}: {error}")
                continue
            while lines and not lines[-1].strip():
                lines.pop()
            self._add(listing, path, names, lines, frames, bad)
            beyond = sum(number > len(lines) for number in frames)
            if beyond:
                listing.excluded["frames without a line of annotation"] += beyond
        return listing

    def _add(
        self, listing: Listing, path: Path, names: list[str], lines: list[str], frames: dict[int, Path], bad: BadSamples
    ) -> None:
        group = _SECOND_PERSON.sub("", path.stem)
        for number, line in enumerate(lines, start=1):
            code = _code(line, len(names))
            if code is None:
                bad.add(
                    f"{path}, line {number + 1}: found '{line}', expected a code from 0 to {len(names) - 1}, or −1 "
                    "where there is none"
                )
            elif number not in frames:
                listing.excluded["frames without a detected face"] += 1
            elif (number - 1) % self._every:
                listing.excluded["further frames of the videos"] += 1
            elif code == _INVALID:
                listing.excluded["frames that are not annotated (−1)"] += 1
            elif names[code] == _OTHER:
                listing.excluded["annotated as other"] += 1
            else:
                frame = frames[number]
                identity = frame.relative_to(self._images).as_posix()
                listing.pictures.append(ListedPicture(frame, names[code], identity, group=group))


def _names(line: str) -> list[str]:
    """Returns the expression of each code, as the first line of an annotation file names them."""
    words = [word.strip() for word in line.split(",")]
    try:
        names = [_OTHER if word.lower() == _OTHER else canonical_expression(word) for word in words]
    except ValueError as error:
        raise ValueError(f"found the first line '{line}' ({error}), expected the names of the codes") from None
    if len(set(names)) < max(len(names), 2):
        raise ValueError(f"found the first line '{line}', expected the names of the codes, each once")
    return names


def _frames(folder: Path) -> dict[int, Path]:
    """Returns the frames of a video by their numbers."""
    if not folder.is_dir():
        raise ValueError(f"found no folder {folder}, expected the frames of the video")
    matches = ((_FRAME.fullmatch(path.name), path) for path in sorted(folder.iterdir()))
    return {int(match[1]): path for match, path in matches if match}


def _code(line: str, names: int) -> int | None:
    """Returns the code of a line, −1 where there is none; None = not known."""
    try:
        code = int(line.strip())
    except ValueError:
        return None
    return code if _INVALID <= code < names else None
