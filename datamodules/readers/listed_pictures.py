"""Data sets that list their pictures, in a table or by their folders: everything but the listing is the same."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.au_tables.au_source import AUSource
from datamodules.readers.good_pictures import good_pictures
from datamodules.readers.known_sets import looks_like, say_what_it_is
from datamodules.readers.reader import BadSamples, OnBadSample, Reader, Split, check_on_bad_sample
from datamodules.rows.image_files import find_class_files, names_below
from datamodules.rows.images import Box, FileImages
from datamodules.rows.sample_table import UNLABELLED, ReadReport, SampleTable, one_hot
from datamodules.rows.unlabelled import unlabelled_soft_labels
from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.expressions import resolve_label_space
from synfer.foundation.on_rank_zero import warn_on_rank_zero

_KEY = "data.reader.init_args"
Landmarks = Sequence[tuple[float, float]]
"""Five points: see :data:`synfer.faces.face_alignment.POINTS`."""


@dataclass(frozen=True)
class ListedPicture:
    """One picture as its data set lists it.

    Attributes:
        path: file.
        expression: canonical name; None = nobody has said, and something else is known of it.
        sample_id: unique in the data set.
        box: of the face in the picture; None = the picture is a crop.
        group: the person, or the photograph: rows of one group belong on one side of a split; None = not known.
        shares: canonical name → share in (0, 1], of a face that shows several at once, 1 together; None = it shows
            ``expression`` alone.
        affect: valence and arousal in [-1, 1], NaN where one is not known; None = both.
        units: name of an action unit → 0 or 1, or how strongly it acts, in [0, 1]; NaN, and units left out, are not
            known.
        attributes: what else is said of the face: name → value.
        landmarks: x and y of five points of the face in the picture, in pixels; None = not known.
    """

    path: Path
    expression: str | None
    sample_id: str
    box: Box | None = None
    group: str | None = None
    shares: Mapping[str, float] | None = None
    affect: tuple[float, float] | None = None
    units: Mapping[str, float] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    landmarks: Landmarks | None = None


@dataclass
class Listing:
    """The pictures of one split.

    Attributes:
        pictures: in the order of the data set.
        excluded: reason → number of rows that are left out by the rules of the data set.
        groups: those of bad pictures: folds are the same with them and without.
        units_source: who says which action units act, and what kind of number it is.
    """

    pictures: list[ListedPicture] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    groups: set[str] = field(default_factory=set)
    units_source: AUSource | None = None


class ListedPicturesReader(Reader):
    """Reads a data set that lists its pictures; a subclass says how.

    Images stay on disk and are decoded when asked for; ``read`` decodes each once to check and to hash it. Where the
    numbers of pictures are published, other numbers are a warning that says so: copies of a data set that go round
    often hold a part of it.

    Args:
        root: folder of the data set.
        label_space: "basic7", "ferplus8" or a list of names; None = that of the release. Pictures of an expression
            outside it are left out and counted in ``table.report.excluded``.
        image_size: side in pixels; the central square is cut and resized to it. None = ``data.image_size``, and where
            that is None too, all images have one size.
        on_bad_sample: "error", or "skip" to leave bad samples out (counted and named in ``table.report``).

    Raises:
        FileNotFoundError: ``root`` is missing, or holds no such data set.
        ValueError: the label space is not known, or a setting is out of range.
    """

    title: ClassVar[str]
    """What the data set is called in messages."""

    release_space: ClassVar[tuple[str, ...]]
    """Expressions of the release, in canonical order."""

    splits: ClassVar[tuple[Split, ...]]
    """Official splits."""

    published: ClassVar[Mapping[str, int]] = {}
    """Split → number of labelled pictures that the release is known to have."""

    names_no_release: ClassVar[bool] = False
    """Whether the reader reads whatever has its layout, and so looks whether the numbers are those of a known copy."""

    def __init__(
        self,
        root: str,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        check_on_bad_sample(on_bad_sample)
        if image_size is not None and image_size < 1:
            raise ValueError(f"{_KEY}.image_size: found {image_size}, expected at least 1 or null")
        self._given_size, self._on_bad_sample = image_size, on_bad_sample
        self.label_space = self.release_space if label_space is None else resolve_label_space(label_space)
        self._root = Path(root)
        if not self._root.is_dir():
            raise FileNotFoundError(f"{_KEY}.root: found no folder '{root}', expected {self.title} there")
        self._find()

    def has_split(self, split: Split) -> bool:
        """Whether the data set has a split."""
        return split in self.splits

    @property
    def _image_size(self) -> int | None:
        return self._given_size or self.wanted_size

    def _find(self) -> None:
        """Finds the parts of the data set below ``root``.

        Raises:
            FileNotFoundError: one is missing.
        """

    @abstractmethod
    def _list(self, split: Split, bad: BadSamples) -> Listing:
        """Returns the pictures of one official split; what cannot be understood goes to ``bad``."""

    def _list_class_folders(self, folder: Path, expression_of: Callable[[str], str | None], bad: BadSamples) -> Listing:
        """Returns the pictures of ``<folder>/<class>``; those of a folder that is not understood go to ``bad``.

        Args:
            folder: of the classes.
            expression_of: name of a class's folder → canonical name, None = left out, or a ValueError.
            bad: hears of the others.
        """
        found, listing = find_class_files(folder), Listing()
        listing.excluded.update(found.reasons(self._root))
        for group, files in found.images.items():
            try:
                expression = expression_of(group.name)
            except ValueError as error:
                for file in files:
                    bad.add(f"{file}: {error}")
                continue
            if expression is None:
                listing.excluded[f"class_map leaves out folder '{group.name}'"] += len(files)
                continue
            for file, name in zip(files, names_below(files, self._root), strict=True):
                listing.pictures.append(ListedPicture(file, expression, name))
        return listing

    def _missing(self, what: str) -> FileNotFoundError:
        """Returns the error of a part that is not there, which names what is."""
        present = ", ".join(sorted(path.name for path in self._root.iterdir())[:8]) or "nothing"
        return FileNotFoundError(
            f"{_KEY}.root: found no {what} in '{self._root}' (there: {present}), expected {self.title}"
        )

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of one split; the images are read when asked for.

        Raises:
            ValueError: the data set has no such split, a label or a file is not known, or an image is bad (unless
                skipped).
        """
        if split not in self.splits:
            raise ValueError(
                f"{self.title}: found no official split '{split}' ({', '.join(self.splits)}), expected one of them: "
                f"datamodules.readers.RemappedReader with splits {{{split}: {self.splits[-1]}}} reads another in its "
                "place" + (", and --data.val_fraction 0.1 holds some training rows out" if split == "val" else "")
            )
        bad = BadSamples(self._on_bad_sample)
        listing = self._list(split, bad)
        if not self.published and self.names_no_release:
            say_what_it_is(
                f"{self._root}, split '{split}'", Counter(one.expression for one in listing.pictures if one.expression)
            )
        if split in self.published:
            self._compare(f"split '{split}'", self._number_listed(listing, bad), self.published[split])
        excluded = Counter(listing.excluded)
        pictures = []
        for picture in listing.pictures:
            outside = [name for name in _shown(picture) if name not in self.label_space]
            if outside:
                excluded[f"expression '{outside[0]}' is outside the label space"] += 1
            else:
                pictures.append(picture)
        listed = len(listing.pictures) + len(bad) + sum(listing.excluded.values())
        paths, boxes = [picture.path for picture in pictures], [picture.box for picture in pictures]
        places, hashes = good_pictures(paths, self._root, self._image_size, bad, boxes)
        good = [pictures[place] for place in places]
        skipped = bad.settle(of=listed)
        if not good:
            raise ValueError(
                f"{self._root}: found no usable picture of split '{split}' ({listed} listed, {len(skipped)} bad, "
                f"{sum(excluded.values())} left out by rule), expected at least one"
            )
        label = np.array([self._label_of(picture) for picture in good], dtype=np.int64)
        groups = [picture.group for picture in good]
        return SampleTable(
            images=FileImages([picture.path for picture in good], self._image_size, [picture.box for picture in good]),
            label=label,
            soft_label=self._soft_labels(good, label),
            sample_id=np.array([picture.sample_id for picture in good]),
            content_hash=np.array(hashes),
            label_space=self.label_space,
            split=split,
            au=_units_of(good),
            au_source=None if listing.units_source is None else listing.units_source.record(),
            affect=_affect_of(good),
            group=None if None in groups else np.array(groups),
            attributes=_attributes(good),
            landmarks=_landmarks(good) if self.wants_landmarks else None,
            report=ReadReport(read=listed, skipped=skipped, excluded=dict(excluded)),
        )

    def _label_of(self, picture: ListedPicture) -> int:
        return UNLABELLED if picture.expression is None else self.label_space.index(picture.expression)

    def _number_listed(self, listing: Listing, bad: BadSamples) -> int:
        """Returns how many pictures were found of those that the published number counts: the labelled ones."""
        return len(listing.pictures) + len(bad)

    def _soft_labels(self, pictures: Sequence[ListedPicture], label: np.ndarray) -> np.ndarray:
        """Returns float32 (N, K): shares where a picture has some, one-hot elsewhere; every class alike without any."""
        soft_label = one_hot(label, len(self.label_space))
        soft_label[label == UNLABELLED] = unlabelled_soft_labels(1, len(self.label_space))
        for row, picture in enumerate(pictures):
            if picture.shares is not None:
                soft_label[row] = [picture.shares.get(name, 0.0) for name in self.label_space]
        return soft_label

    def _compare(self, part: str, found: int, known: int) -> None:
        """Warns where a part of the data set has another number of labelled pictures than is published."""
        if found == known:
            return
        same = [f"{one.named}{f' ({one.pitfall})' if one.pitfall else ''}" for one in looks_like(found)]
        like = f"; as many has {' or '.join(same[:2])}" if same else ""
        warn_on_rank_zero(
            f"{self.title}, {part}: found {found:,} labelled pictures, the release has {known:,}{like}: results are "
            "not comparable with those that are published"
        )


def _attributes(pictures: Sequence[ListedPicture]) -> dict[str, np.ndarray]:
    """Returns name → values, "" where a picture has none."""
    names = dict.fromkeys(name for picture in pictures for name in picture.attributes)
    return {name: np.array([picture.attributes.get(name, "") for picture in pictures]) for name in names}


def _landmarks(pictures: Sequence[ListedPicture]) -> np.ndarray | None:
    """Returns float32 (N, 5, 2), NaN where a picture has none; None where no picture has any."""
    if all(picture.landmarks is None for picture in pictures):
        return None
    unknown = [(np.nan, np.nan)] * 5
    return np.array([picture.landmarks or unknown for picture in pictures], dtype=np.float32)


def _shown(picture: ListedPicture) -> Sequence[str]:
    """Returns the expressions of a picture, that of its label first; none where nobody has said."""
    return [name for name in (picture.expression, *(picture.shares or ())) if name is not None]


def _affect_of(pictures: Sequence[ListedPicture]) -> np.ndarray | None:
    """Returns valence and arousal, float32 (N, 2); None where no picture has any."""
    if all(picture.affect is None for picture in pictures):
        return None
    unknown = (np.nan, np.nan)
    return np.array([unknown if p.affect is None else p.affect for p in pictures], dtype=np.float32)


def _units_of(pictures: Sequence[ListedPicture]) -> np.ndarray | None:
    """Returns the action units, float32 (N, A), NaN where one is not known; None where no picture has any."""
    if all(picture.units is None for picture in pictures):
        return None
    column = {name: place for place, name in enumerate(ACTION_UNITS)}
    units = np.full((len(pictures), len(ACTION_UNITS)), np.nan, dtype=np.float32)
    for row, picture in enumerate(pictures):
        for name, value in (picture.units or {}).items():
            units[row, column[name]] = value
    return units
