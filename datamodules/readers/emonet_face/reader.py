"""EmoNet-Face in its published forms: a table beside pictures, or Parquet files with both."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq

from datamodules.picture_tables.cell_images import CellImages
from datamodules.picture_tables.found_table import TableColumns
from datamodules.picture_tables.parquet_set import ParquetSet
from datamodules.picture_tables.row_names import unique_names
from datamodules.readers.emonet_face.annotations import intensity, read_binary, read_hq, said_in, yes_or_no
from datamodules.readers.emonet_face.emotions import chosen_emotions
from datamodules.readers.emonet_face.judgement import Judged, Said, agreement_in_words, judge
from datamodules.readers.good_cells import good_cells
from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import ListedPicture, ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from datamodules.rows.image_files import find_images
from datamodules.rows.sample_table import ReadReport, SampleTable
from synfer.faces.expressions import EXPRESSIONS

_KEY = "data.reader.init_args"


class EmoNetFaceReader(ListedPicturesReader):
    """Reads what people said of made faces as expressions with soft labels; a subclass says in which form.

    Layout: the table of the release's repository (LAION-AI/emonet-face) in ``root`` or its ``data``, with the pictures
    anywhere below ``root``, named as in the table; or Parquet files as on the Hub, below ``root``. In those the picture
    is the column ``image`` or ``path``, and the text of ``annotations`` or ``label`` spells [{annotator: {emotion:
    value}}, …], as that of the HQ set does; no other form of it is known here.

    An emotion is an expression where it is named like it (:data:`~datamodules.readers.emonet_face.emotions.NAMED`;
    Elation is happy, Anger anger, …); of the forty seven are, and none is neutral. LAION's own evaluations map all
    forty, each another way. ``emotions`` adds to the rule or takes away. How a face is judged:
    :func:`~datamodules.readers.emonet_face.judgement.judge`. Faces that are left out are counted by reason. The
    attributes ``agreement`` (all, most, half or fewer of the annotators, or one annotator) and ``annotators`` say how
    sure a label is.

    All faces are SYNTHETIC, and each row says so. CC BY 4.0, to be had from the Hub; read here in its layouts alone,
    made of drawn faces.

    Args:
        root: folder of the data set.
        emotions: emotion of the release → expression, beside those that are named like one; null = it is none.
        least_strength: mean of what people say (in [0, 1], or of intensities in [0, 7]) below which a face shows no
            expression; None = what the reader's docstring says.
        only_strongest: whether faces are left out that show an emotion without an expression more strongly than any
            expression: a sour face is no disgusted one.
        label_space: as ``ListedPicturesReader``; None = the seven without neutral.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: neither the table nor Parquet files are there.
        ValueError: an unknown emotion or expression, or a setting out of range.
    """

    release_space = EXPRESSIONS[1:]
    table: ClassVar[str]
    """Name of the repository's table."""

    usual_least: ClassVar[float]
    most: ClassVar[float]
    """Largest value that an annotator gives."""

    def __init__(
        self,
        root: str,
        emotions: dict[str, str | None] | None = None,
        least_strength: float | None = None,
        only_strongest: bool = True,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        least = self.usual_least if least_strength is None else least_strength
        if not 0 <= least <= self.most:
            raise ValueError(f"{_KEY}.least_strength: found {least}, expected 0 to {self.most:g}")
        self._least, self._only_strongest = least, only_strongest
        self._all_emotions = chosen_emotions(emotions)
        super().__init__(root, label_space, image_size, on_bad_sample)
        self._emotions = {name: to for name, to in self._all_emotions.items() if to in self.label_space}

    @abstractmethod
    def _read_table(self, path: Path, bad: BadSamples) -> dict[str, Said]:
        """Returns picture → what was said of it."""

    @property
    @abstractmethod
    def _value(self) -> Callable[[Any], float]:
        """What reads one value."""

    def _find(self) -> None:
        tables = [path for path in (self._root / self.table, self._root / "data" / self.table) if path.is_file()]
        self._parquet = sorted(self._root.rglob("*.parquet"))
        if not tables and not self._parquet:
            raise self._missing(f"{self.table} or *.parquet")
        if tables and self._parquet:
            raise ValueError(
                f"{_KEY}.root: found {tables[0]} and {self._parquet[0]}, expected the table with pictures or Parquet "
                "files, not both"
            )
        self._table_file = tables[0] if tables else None

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of the only split, marked as synthetic; see ``ListedPicturesReader.read``.

        Raises:
            ValueError: another split, or a row, a label or a picture that cannot be used (unless skipped).
        """
        if self._table_file is not None or split not in self.splits:
            return replace(super().read(split), is_synthetic=True)
        return self._read_parquet(split)

    def _judge(self, said: Said, excluded: Counter[str]) -> Judged | None:
        judged = judge(said, self._emotions, self._least, self._only_strongest)
        if isinstance(judged, Judged):
            return judged
        excluded[judged] += 1
        return None

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        assert self._table_file is not None
        listing, files = Listing(), find_images(self._root)
        pictures: dict[str, Path] = {}
        for path in files.images[self._root]:
            if path.stem in pictures:
                bad.add(f"{path}: found a second picture of the name '{path.stem}', expected one")
            pictures.setdefault(path.stem, path)
        said = self._read_table(self._table_file, bad)
        for name, of_one in said.items():
            if name not in pictures:
                bad.add(f"{self._table_file}: found no picture '{name}.*' below '{self._root}', expected one")
                continue
            judged = self._judge(of_one, listing.excluded)
            if judged is not None:
                path = pictures[name]
                identity = path.relative_to(self._root).as_posix()
                told = _attributes(judged)
                picture = ListedPicture(path, judged.expression, identity, shares=judged.shares, attributes=told)
                listing.pictures.append(picture)
        self._others = len(pictures.keys() - said.keys())
        if self._others:
            listing.excluded["pictures of which the table says nothing"] += self._others
        return listing

    def _number_listed(self, listing: Listing, bad: BadSamples) -> int:
        return len(listing.pictures) + len(bad) + sum(listing.excluded.values()) - self._others

    def _read_parquet(self, split: Split) -> SampleTable:
        columns = _columns(self._parquet[0])
        pictures = ParquetSet(str(self._root), columns)
        found, bad, excluded = pictures.table(pictures.splits[0]), BadSamples(self._on_bad_sample), Counter[str]()
        outcome: list[Judged | None] = []
        for row in range(len(found.cells)):
            code = found.label.codes[row]
            try:
                text = "" if code < 0 else str(found.label.values[code])
                outcome.append(self._judge(said_in(text, self._value), excluded))
            except ValueError as error:
                outcome.append(None)
                bad.add(f"{self._root}: {found.cells.place(row)}: {error}")
        self._compare(f"split '{split}'", len(found.cells), self.published[split])
        wanted = np.array([one is not None for one in outcome])
        good, hashes = good_cells(found, wanted, self._image_size, str(self._root), bad)
        skipped = bad.settle(of=len(found.cells))
        judged = [one for row in good.tolist() if (one := outcome[row]) is not None]
        if not judged:
            raise ValueError(
                f"{self._root}: found no usable row ({len(found.cells)} rows, {len(skipped)} bad, "
                f"{sum(excluded.values())} left out by rule), expected at least one"
            )
        attributes = [_attributes(one) for one in judged]
        return SampleTable(
            images=CellImages(found.cells, good, str(self._root), self._image_size),
            label=np.array([self.label_space.index(one.expression) for one in judged], dtype=np.int64),
            soft_label=np.array(
                [[one.shares.get(name, 0.0) for name in self.label_space] for one in judged], dtype=np.float32
            ),
            sample_id=unique_names(found, good),
            content_hash=hashes,
            label_space=self.label_space,
            split=split,
            attributes={name: np.array([one[name] for one in attributes]) for name in attributes[0]},
            is_synthetic=True,
            report=ReadReport(read=len(found.cells), skipped=skipped, excluded=dict(excluded)),
        )


class EmoNetFaceBinaryReader(EmoNetFaceReader):
    """Reads EmoNet-Face Binary (Schuhmann and others 2025): 19,999 made faces, yes or no to two emotions each.

    Table: ``binary.csv`` with path (``00000``), annotator, value (True or False) and emotion, one answer a row, 65,686
    of them from seven people; one to three of them judge an emotion of a face. It writes Hopelessness where the guide
    has Helplessness. Strength of an emotion: the share of those asked who say yes; ``least_strength`` 0.6, so that two
    of three are enough and one of two are not. Many faces were asked about emotions that are no expressions: they are
    left out and counted. All of them are "train"; ``data.val_fraction`` holds some out. Otherwise as
    ``EmoNetFaceReader``, whose arguments it has.
    """

    title = "EmoNet-Face Binary (binary.csv and pictures, or Parquet files)"
    splits = ("train",)
    published: ClassVar = published("EmoNet-Face Binary")
    table, usual_least, most = "binary.csv", 0.6, 1.0
    _value = staticmethod(yes_or_no)  # type: ignore[assignment]

    def _read_table(self, path: Path, bad: BadSamples) -> dict[str, Said]:
        return read_binary(path, bad)


class EmoNetFaceHQReader(EmoNetFaceReader):
    """Reads EmoNet-Face HQ (Schuhmann and others 2025): 2,500 made faces, intensities from 0 to 7 of forty emotions.

    Table: ``hq.csv`` with image, annotator, human and annotations, a dictionary spelt as text, of "Family|Emotion" →
    intensity; rows of models (human False) and the "Extra Dimensions" are passed over. Strength of an emotion: the mean
    over the people; ``least_strength`` 1. It is a TEST set, though its only split on the Hub is called train: here it
    is "test". Otherwise as ``EmoNetFaceReader``, whose arguments it has.
    """

    title = "EmoNet-Face HQ (hq.csv and pictures, or Parquet files)"
    splits = ("test",)
    published: ClassVar = published("EmoNet-Face HQ")
    table, usual_least, most = "hq.csv", 1.0, 7.0
    _value = staticmethod(intensity)  # type: ignore[assignment]

    def _read_table(self, path: Path, bad: BadSamples) -> dict[str, Said]:
        return read_hq(path, bad)


def _attributes(judged: Judged) -> dict[str, str]:
    return {"agreement": agreement_in_words(judged), "annotators": str(judged.annotators)}


def _columns(path: Path) -> TableColumns:
    """Returns the columns of the picture and of what people said.

    Raises:
        ValueError: one is not there.
    """
    names = pq.read_schema(path).names
    image = next((name for name in ("image", "path") if name in names), None)
    label = next((name for name in ("annotations", "label") if name in names), None)
    if image is None or label is None:
        raise ValueError(
            f"{path}: found the columns {', '.join(names)}, expected image or path, and annotations or label"
        )
    return TableColumns(image, label)
