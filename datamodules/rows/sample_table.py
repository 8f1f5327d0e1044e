"""Rows of one split: what every reader returns, whatever the layout on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.affect import AFFECT

UNLABELLED = -1
"""Label of a row whose expression is not known; its soft label has every class alike."""


class ImageSource(Protocol):
    """Images by row number, in memory or read when asked for."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 1, H, W), grey, or (n, 3, H, W), RGB, for int64 row numbers (n,)."""
        ...

    def select(self, rows: np.ndarray) -> ImageSource:
        """Returns the images of these rows, in this order."""
        ...


class ArrayImages:
    """Images held in memory, grey or RGB.

    Args:
        array: uint8 (N, H, W) grey or (N, H, W, 3) RGB.

    Raises:
        ValueError: another dtype or shape.
    """

    def __init__(self, array: np.ndarray) -> None:
        if array.dtype != np.uint8 or array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] != 3):
            raise ValueError(f"images {array.dtype} {array.shape}: expected uint8 (N, H, W) or (N, H, W, 3)")
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 1, H, W) of a grey array, else (n, 3, H, W), RGB."""
        picked = torch.from_numpy(self.array[rows])
        return picked[:, None] if picked.ndim == 3 else picked.permute(0, 3, 1, 2)

    def select(self, rows: np.ndarray) -> ArrayImages:
        """Returns the images of these rows, in this order."""
        return ArrayImages(self.array[rows])

    def whole(self, row: int) -> np.ndarray:
        """Returns one picture, uint8 (H, W) or (H, W, 3)."""
        picture: np.ndarray = self.array[row]
        return picture


@dataclass(frozen=True)
class ReadReport:
    """What a reader met on its way: counted and named, never skipped silently.

    Attributes:
        read: rows found.
        skipped: one line per row left out because it was bad (``on_bad_sample="skip"``).
        excluded: reason → number of rows left out by rule (no majority, not a face, …).
        agreement: how far the annotators of the rows agreed, where each of them is known to have voted
            (:func:`synfer.labels.annotator_agreement.annotator_agreement`); empty = the data set does not say.
    """

    read: int = 0
    skipped: tuple[str, ...] = ()
    excluded: dict[str, int] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleTable:
    """Rows of one split.

    Attributes:
        images: N images.
        label: int64 (N,), index into ``label_space``; −1 (:data:`UNLABELLED`) = not known.
        soft_label: float32 (N, K), rows sum to 1.
        sample_id: str (N,), unique.
        content_hash: str (N,): first 16 hex digits of SHA-256 over the decoded pixels (one channel for grey images).
        label_space: K names.
        split: "train", "val" or "test".
        au: float32 (N, A) in [0, 1], NaN = unknown; None = unknown for all.
        au_names: names of the A columns.
        au_source: where the action units come from, in plain types: tool, columns, what kind of number each is; None =
            the reader's own.
        affect: float32 (N, 2), valence and arousal in [-1, 1] (:data:`synfer.faces.affect.AFFECT`), each NaN where it
            is not known; None = unknown for all.
        caption: N captions; None = made from templates.
        group: str (N,), rows that belong on one side of a split: those of one person, or of one photograph; None = the
            data set does not say.
        attributes: name → str (N,), what else the data set says of each face ("gender": "female"), "" = nothing; scores
            are told for each value. {} = the data set says nothing.
        landmarks: float32 (N, 5, 2): x and y of five points of each face in pixels of the whole picture (see
            :data:`synfer.faces.face_alignment.POINTS`), whole numbers in the centres; NaN = not known; None = of none.
        alignment: how faces were brought onto a template, in plain types; None = they were not.
        is_synthetic: whether these rows were generated.
        held_out: how training rows were divided into these and others, in plain types: share, seed; None = they were
            not.
        report: what the reader met.
    """

    images: ImageSource
    label: np.ndarray
    soft_label: np.ndarray
    sample_id: np.ndarray
    content_hash: np.ndarray
    label_space: tuple[str, ...]
    split: str
    au: np.ndarray | None = None
    au_names: tuple[str, ...] = ACTION_UNITS
    au_source: dict[str, Any] | None = None
    affect: np.ndarray | None = None
    caption: np.ndarray | None = None
    group: np.ndarray | None = None
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    landmarks: np.ndarray | None = None
    alignment: dict[str, Any] | None = None
    is_synthetic: bool = False
    held_out: dict[str, Any] | None = None
    report: ReadReport = field(default_factory=ReadReport)

    def __post_init__(self) -> None:
        n, k = len(self.images), len(self.label_space)
        shapes = {
            "label": (self.label.shape, (n,)),
            "soft_label": (self.soft_label.shape, (n, k)),
            "sample_id": (self.sample_id.shape, (n,)),
            "content_hash": (self.content_hash.shape, (n,)),
        }
        if self.au is not None:
            shapes["au"] = (self.au.shape, (n, len(self.au_names)))
        if self.affect is not None:
            shapes["affect"] = (self.affect.shape, (n, len(AFFECT)))
        if self.caption is not None:
            shapes["caption"] = (self.caption.shape, (n,))
        if self.group is not None:
            shapes["group"] = (self.group.shape, (n,))
        shapes |= {f"attribute '{name}'": (values.shape, (n,)) for name, values in self.attributes.items()}
        if self.landmarks is not None:
            shapes["landmarks"] = (self.landmarks.shape, (n, 5, 2))
        for name, (found, expected) in shapes.items():
            if found != expected:
                raise ValueError(f"{self.split} table: {name} has shape {found}, expected {expected}")
        if n == 0:
            raise ValueError(f"{self.split} table is empty: found 0 usable rows, expected at least one")
        if self.label.min() < UNLABELLED or self.label.max() >= k:
            labels = f"labels {self.label.min()}…{self.label.max()}"
            raise ValueError(f"{self.split} table: {labels}, expected 0…{k - 1}, or {UNLABELLED} where there is none")
        if self.au is not None:
            with np.errstate(invalid="ignore"):
                wrong = np.flatnonzero(((self.au < 0) | (self.au > 1)).any(axis=1) | np.isinf(self.au).any(axis=1))
            if len(wrong):
                raise ValueError(
                    f"{self.split} table: action units of '{self.sample_id[wrong[0]]}' lie outside [0, 1] "
                    f"(and of {len(wrong) - 1} more rows)"
                )
        if self.affect is not None:
            wrong = np.flatnonzero((np.abs(np.nan_to_num(self.affect, nan=0.0)) > 1).any(axis=1))
            if len(wrong):
                raise ValueError(
                    f"{self.split} table: valence and arousal of '{self.sample_id[wrong[0]]}' are "
                    f"{', '.join(f'{value:g}' for value in self.affect[wrong[0]])}, expected numbers in [-1, 1] or NaN "
                    f"(and of {len(wrong) - 1} more rows)"
                )
        bad = np.flatnonzero(~(np.abs(self.soft_label.sum(axis=1) - 1) < 1e-3))
        if len(bad):
            raise ValueError(
                f"{self.split} table: soft label of '{self.sample_id[bad[0]]}' sums to "
                f"{self.soft_label[bad[0]].sum():.4g}, expected 1 (and {len(bad) - 1} more rows)"
            )

    def __len__(self) -> int:
        return len(self.label)

    def select(self, rows: np.ndarray) -> SampleTable:
        """Returns the table of these rows (int64 row numbers or a boolean mask)."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(
            self,
            images=self.images.select(rows),
            label=self.label[rows],
            soft_label=self.soft_label[rows],
            sample_id=self.sample_id[rows],
            content_hash=self.content_hash[rows],
            au=None if self.au is None else self.au[rows],
            affect=None if self.affect is None else self.affect[rows],
            caption=None if self.caption is None else self.caption[rows],
            group=None if self.group is None else self.group[rows],
            attributes={name: values[rows] for name, values in self.attributes.items()},
            landmarks=None if self.landmarks is None else self.landmarks[rows],
        )

    def class_counts(self) -> dict[str, int]:
        """Returns the number of rows per expression name."""
        return dict(zip(self.label_space, self.count_per_class().tolist(), strict=True))

    def count_per_class(self) -> np.ndarray:
        """Returns the number of labelled rows per class, int64 (K,), in the order of the label space."""
        return np.bincount(self.label[self.label != UNLABELLED], minlength=len(self.label_space))


def affect_of(table: SampleTable) -> np.ndarray:
    """Returns valence and arousal of every row, float32 (N, 2), NaN where nobody knows."""
    return np.full((len(table), len(AFFECT)), np.nan, dtype=np.float32) if table.affect is None else table.affect


def one_hot(label: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns float32 (N, K) for int64 labels (N,)."""
    return np.eye(num_classes, dtype=np.float32)[label]


def square_side(table: SampleTable) -> int:
    """Returns the side of a table's pictures in pixels, told by the first one.

    Raises:
        ValueError: they are no squares.
    """
    height, width = table.images.batch(np.array([0])).shape[-2:]
    if height != width:
        raise ValueError(f"training images are {height}x{width}: expected squares, or data.image_size=<side in pixels>")
    return height
