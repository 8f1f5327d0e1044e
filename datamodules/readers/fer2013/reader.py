"""FER2013 in its four public layouts, with original labels or FER+ votes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.readers.fer2013.ferplus_votes import FERPLUS_SPACE, VOTE_COLUMNS, count_votes
from datamodules.readers.fer2013.layouts import OFFICIAL_CODES, SIDE, FER2013Rows, detect_layout
from datamodules.readers.known_sets import say_what_it_is
from datamodules.readers.reader import BadSamples, OnBadSample, Reader, Split, check_on_bad_sample
from datamodules.rows.images import BadImageError, check_not_constant
from datamodules.rows.provenance import content_hash
from datamodules.rows.sample_table import ArrayImages, ReadReport, SampleTable, one_hot
from synfer.faces.expressions import LABEL_SPACES
from synfer.labels.annotator_agreement import annotator_agreement

logger = logging.getLogger(__name__)

OFFICIAL_USAGES = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}

OFFICIAL_BLACK_ROWS = frozenset(
    (6458, 7629, 10423, 11286, 13148, 13402, 13988, 15894, 22198, 22927, 28601, 30002),
)
"""All-black rows that the official release itself holds: part of the benchmark, so they are reported, not refused."""

FEWEST_AGREEING, ROWS_TO_JUDGE = 0.45, 50
"""Share of rows on which FER+ confirms the original label, below which the votes belong to other rows: it is 0.63 to
0.65 in each usage of the releases and 0.17 after a shuffle. Fewer rows than this many are not judged."""


@dataclass(frozen=True)
class FER2013Report(ReadReport):
    """What the reader met.

    Attributes:
        black_rows: rows of the official release that are black, and nevertheless in the table.
    """

    black_rows: tuple[int, ...] = ()


class FER2013Reader(Reader):
    """Reads FER2013 (Goodfellow et al., arXiv:1307.0414) and its FER+ labels (Barsoum et al., arXiv:1608.01041).

    Release: the 2013 Kaggle challenge, 35,887 grey faces of 48×48 pixels (Training 28,709, PublicTest 3,589,
    PrivateTest 3,589), codes 0 angry, 1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral; FER+ of 2016, ten
    votes per row. Codes are mapped by name. Layouts, told apart by what ``root`` holds:

    - ``*.parquet`` with columns ``row``, ``image`` (encoded), ``label``, ``usage``, ``ferplus_votes``;
    - ``fer2013.csv`` (``emotion,pixels,Usage``) or ``icml_face_data.csv`` (the same with leading blanks in the header),
      with Microsoft's ``fer2013new.csv`` beside it for FER+ (joined by row: its image names are not unique);
    - folders ``train/<name>/*.jpg|png`` and ``test/<name>/...`` (no rows, hence no FER+).

    FER+ modes (8 classes): single votes are dropped; rows whose top vote is "unknown" or "not a face" are left out;
    rows with a tied top vote stay only in the training split of ``ferplus_soft``. ``ferplus_soft`` trains on the
    distribution of votes; validation and test rows always have one-hot labels.

    Black images are bad samples, except the twelve rows of the official release that are black: with the original
    labels they are part of the benchmark, so they stay and ``table.report.black_rows`` names them (FER+ votes and
    ``on_bad_sample="skip"`` leave them out).

    Args:
        root: folder of the data set.
        labels: ``original`` (7 classes), ``ferplus_majority`` or ``ferplus_soft`` (8 classes).
        usages: split → official usage ("Training", "PublicTest", "PrivateTest") or, in the folder layout, name of a
            folder; splits left out keep Training, PublicTest and PrivateTest.
        limit: keep so many usable rows of each split, the expressions in proportion and spread over the file, which may
            be sorted; None keeps all.
        on_bad_sample: "error", or "skip" to leave bad samples out (counted and named in ``table.report``).

    Raises:
        FileNotFoundError: ``root`` is missing or holds no known layout, or FER+ votes are asked for and not there.
        ValueError: a setting or a column is not known.
    """

    def __init__(
        self,
        root: str,
        labels: Literal["original", "ferplus_majority", "ferplus_soft"] = "original",
        usages: dict[str, str] | None = None,
        limit: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        check_on_bad_sample(on_bad_sample)
        if labels not in ("original", "ferplus_majority", "ferplus_soft"):
            raise ValueError(
                f"data.reader.init_args.labels: found '{labels}', expected original, ferplus_majority or ferplus_soft"
            )
        unknown = sorted(set(usages or {}) - set(OFFICIAL_USAGES))
        if unknown:
            raise ValueError(f"data.reader.init_args.usages: found split '{unknown[0]}', expected train, val or test")
        if limit is not None and limit < 1:
            raise ValueError(f"data.reader.init_args.limit: found {limit}, expected at least 1 or null")
        self._root, self.labels, self._limit, self._on_bad_sample = Path(root), labels, limit, on_bad_sample
        self._usages = {**OFFICIAL_USAGES, **(usages or {})}
        self._layout = detect_layout(self._root, with_votes=labels != "original")
        self.label_space = LABEL_SPACES["basic7"] if labels == "original" else FERPLUS_SPACE

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of one split, decoded into memory (uint8, grey).

        Raises:
            ValueError: the split is empty, a code or a vote is not known, or an image is bad (unless skipped).
        """
        usage, bad = self._usages[split], BadSamples(self._on_bad_sample)
        rows = self._layout(usage, bad)
        excluded = dict(rows.left_out)
        found = rows.total + sum(excluded.values())
        if self.labels == "original":
            label, soft_label = self._original_labels(rows, bad)
            keep = label >= 0
        else:
            label, soft_label, keep = self._vote_labels(rows, split, bad, excluded)
        usable = _spread(np.flatnonzero(keep), label, self._limit)
        images = np.zeros((len(usable), SIDE, SIDE), dtype=np.uint8)
        hashes = np.zeros(len(usable), dtype="<U16")
        good = np.zeros(len(usable), dtype=bool)
        black: list[int] = []
        for slot, index in enumerate(usable):
            number = rows.number[index]
            try:
                image = rows.image(index)
                try:
                    check_not_constant(image, rows.where[index])
                except BadImageError:
                    if number not in OFFICIAL_BLACK_ROWS or image.any() or self._on_bad_sample == "skip":
                        raise
                    black.append(number)
            except BadImageError as error:
                bad.add(str(error))
                continue
            images[slot], hashes[slot], good[slot] = image, content_hash(image), True
        skipped = bad.settle(of=found)
        if not good.any():
            raise ValueError(
                f"split '{split}' of {self._root}: found no usable row ({found} with usage '{usage}', "
                f"{len(skipped)} bad, {sum(excluded.values())} left out by rule), expected at least one"
            )
        if self.labels == "original" and self._limit is None:
            counted = np.bincount(label[label >= 0], minlength=len(self.label_space)).tolist()
            say_what_it_is(f"{self._root}, split '{split}'", dict(zip(self.label_space, counted, strict=True)))
        if black:
            logger.info("%s: %d official black images kept (rows %s)", split, len(black), ", ".join(map(str, black)))
        usable = usable[good]
        return SampleTable(
            images=ArrayImages(images if good.all() else images[good]),
            label=label[usable],
            soft_label=soft_label[usable],
            sample_id=np.array([rows.sample_id[index] for index in usable]),
            content_hash=hashes[good],
            label_space=self.label_space,
            split=split,
            report=FER2013Report(
                read=found,
                skipped=skipped,
                excluded=excluded,
                agreement={} if self.labels == "original" else annotator_agreement(_votes_of(rows, usable)),
                black_rows=tuple(black),
            ),
        )

    def _original_labels(self, rows: FER2013Rows, bad: BadSamples) -> tuple[np.ndarray, np.ndarray]:
        """Returns label (N,), −1 where bad, and its one-hot form (N, 7)."""
        of_code = np.array([self.label_space.index(name) for name in OFFICIAL_CODES] + [-1], dtype=np.int64)
        label = of_code[rows.code]
        for index in np.flatnonzero(label < 0):
            bad.add(f"{rows.where[index]}: found label code {rows.raw_code[index]!r}, expected 0 to 6")
        return label, one_hot(label, len(self.label_space))

    def _vote_labels(
        self, rows: FER2013Rows, split: Split, bad: BadSamples, excluded: dict[str, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns label (N,), soft label (N, 8) and which rows to keep; counts the others in ``excluded``."""
        votes = np.zeros((rows.total, len(VOTE_COLUMNS)), dtype=np.int64)
        readable = np.zeros(rows.total, dtype=bool)
        for index, row in enumerate(rows.votes or []):
            if row is not None and len(row) == len(VOTE_COLUMNS) and all(isinstance(v, int) and v >= 0 for v in row):
                votes[index], readable[index] = row, True
            else:
                bad.add(f"{rows.where[index]}: found FER+ votes {row}, expected {len(VOTE_COLUMNS)} counts")
        outcome = count_votes(votes)
        rejected, tied = outcome.rejected & readable, outcome.tied & readable
        keep = readable & ~rejected
        self._check_agreement(rows, outcome.label, readable & ~rejected & ~tied)
        soft = self.labels == "ferplus_soft" and split == "train"
        if not soft:
            keep &= ~tied
            if tied.any():
                excluded["tied FER+ top vote"] = int(tied.sum())
        if rejected.any():
            excluded["FER+ top vote is unknown or not a face"] = int(rejected.sum())
        soft_label = outcome.distribution if soft else one_hot(outcome.label, len(self.label_space))
        return outcome.label, soft_label, keep

    def _check_agreement(self, rows: FER2013Rows, label: np.ndarray, decided: np.ndarray) -> None:
        """Refuses votes that belong to other faces: they are joined by row, and a table may have been sorted since."""
        of_code = np.array([FERPLUS_SPACE.index(name) for name in OFFICIAL_CODES] + [-1])
        judged = decided & (rows.code < len(OFFICIAL_CODES))
        agree = float((of_code[rows.code] == label)[judged].mean()) if judged.any() else 1.0
        if judged.sum() >= ROWS_TO_JUDGE and agree < FEWEST_AGREEING:
            raise ValueError(
                f"{self._root}: found FER+ votes that confirm the original label of {agree:.0%} of {judged.sum()} "
                "rows, expected about 64 %: the votes belong to other rows (was a table sorted or shuffled? Both must "
                "be in the order of their release)"
            )


def _votes_of(rows: FER2013Rows, which: np.ndarray) -> np.ndarray:
    """Returns the votes of some rows as they were cast, single ones too, int64 (n, 10)."""
    votes = rows.votes or []
    return np.array([votes[index] for index in which], dtype=np.int64).reshape(-1, len(VOTE_COLUMNS))


def _spread(rows: np.ndarray, label: np.ndarray, limit: int | None) -> np.ndarray:
    """Returns at most ``limit`` of these rows, in order: evenly spaced when sorted by label."""
    if limit is None or len(rows) <= limit:
        return rows
    by_label = rows[np.argsort(label[rows], kind="stable")]
    return np.sort(by_label[(2 * np.arange(limit) + 1) * len(rows) // (2 * limit)])
