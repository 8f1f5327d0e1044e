"""Where an image comes from: content hashes, duplicates across splits, and the leak guard (contract C8)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datamodules.rows.folds import hash_numbers
from datamodules.rows.near_duplicates import find_near_duplicates, thumbnails
from datamodules.rows.sample_table import UNLABELLED, SampleTable
from synfer.faces.affect import AFFECT

_AT_ONCE = 65_536


def content_hash(image: np.ndarray) -> str:
    """Returns the first 16 hex digits of SHA-256 over the decoded pixels.

    An RGB image with three equal channels counts as grey, so a face stored once as grey and once as RGB keeps one hash.

    Args:
        image: uint8 (H, W) or (H, W, 3).

    Raises:
        ValueError: another dtype or shape.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3)):
        raise ValueError(f"image {image.dtype} {image.shape}: expected uint8 (H, W) or (H, W, 3)")
    if image.ndim == 3:
        red = image[..., 0]
        if np.array_equal(red, image[..., 1]) and np.array_equal(red, image[..., 2]):
            image = red
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()[:16]


def split_manifest(table: SampleTable) -> dict[str, Any]:
    """Returns the number of rows of a split and one hash of them all: equal where pixels and labels are, in any order.

    Returns:
        ``{"rows": n, "sha256": first 16 hex digits over the sorted pairs of content hash and label name}``; with
        ``"action_units"``, where another tool's have been joined: which, and what kind of numbers they are; with
        ``"known"``, where rows carry valence and arousal: of how many each of them, and the expression, is known; with
        ``"agreement"``, where annotators voted: how far they agreed; with ``"held_out"``, where validation rows were
        taken from training: the share and the seed;
        with ``"alignment"``, where faces were brought onto a template: which, and how they were found.
    """
    names = [*table.label_space, "unlabelled"]  # the last is that of the code −1
    alphabetical = np.argsort(np.argsort(names))[table.label]
    order = np.lexsort((alphabetical, table.content_hash))
    whole = hashlib.sha256()
    for start in range(0, len(order), _AT_ONCE):  # a line for each of a million rows at once would take much memory
        rows = order[start : start + _AT_ONCE]
        told = zip(table.content_hash[rows].tolist(), table.label[rows].tolist(), strict=True)
        whole.update("".join(f"{digest} {names[code]}\n" for digest, code in told).encode())
    manifest: dict[str, Any] = {"rows": len(order), "sha256": whole.hexdigest()[:16]}
    if table.affect is not None:
        known = np.isfinite(table.affect).sum(axis=0).tolist()
        named = int((table.label != UNLABELLED).sum())
        manifest["known"] = {"expression": named, **dict(zip(AFFECT, known, strict=True))}
    if table.report.agreement:
        manifest["agreement"] = table.report.agreement
    if table.held_out is not None:
        manifest["held_out"] = table.held_out
    if table.alignment is not None:
        manifest["alignment"] = table.alignment
    return manifest if table.au_source is None else {**manifest, "action_units": table.au_source}


@dataclass(frozen=True)
class DuplicateReport:
    """Images with the same pixels, within training and between training and evaluation.

    Attributes:
        groups: number of groups of two or more training rows with the same pixels.
        within_train: training rows that repeat an earlier training row.
        conflicting_groups: groups whose training rows do not all have the same label.
        evaluation_duplicates: evaluation split → number of its rows with a duplicate in training.
        training_duplicates: evaluation split → number of training rows with a duplicate in it.
        near_duplicates: evaluation split → (its rows with a near duplicate, but no duplicate, in training; number of
            training rows with one there); {} where none were looked for.
        rows_to_drop: int64, ascending: training row numbers with a duplicate or near duplicate in any evaluation split.
    """

    groups: int
    within_train: int
    conflicting_groups: int
    evaluation_duplicates: dict[str, int] = field(default_factory=dict)
    training_duplicates: dict[str, int] = field(default_factory=dict)
    near_duplicates: dict[str, tuple[int, int]] = field(default_factory=dict)
    rows_to_drop: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __str__(self) -> str:
        """One line for the log."""
        across = [
            f"{rows} {split} rows have a duplicate in training ({self.training_duplicates[split]} training rows)"
            for split, rows in self.evaluation_duplicates.items()
        ]
        across += [
            f"{rows} more {split} rows have a near duplicate there ({training} training rows)"
            for split, (rows, training) in self.near_duplicates.items()
        ]
        return "; ".join(
            [
                f"duplicates: {self.groups} groups in training ({self.within_train} repeated rows, "
                f"{self.conflicting_groups} groups with conflicting labels)",
                *across,
            ]
        )


def find_duplicates(
    train: SampleTable, evaluation: Sequence[SampleTable], near: float | None = None
) -> DuplicateReport:
    """Finds exact duplicates by content hash and, where asked, near ones.

    Args:
        train: training rows.
        evaluation: tables of validation and test rows.
        near: correlation above which thumbnails make near duplicates (:func:`find_near_duplicates`); None
            = exact duplicates only.

    Returns:
        Counts, and the training rows to drop so that no evaluation image is trained on.
    """
    pixels, *theirs = _comparable([train.content_hash, *(table.content_hash for table in evaluation)])
    _, group, size = np.unique(pixels, return_inverse=True, return_counts=True)
    lowest = np.full(len(size), np.iinfo(np.int64).max)
    highest = np.full(len(size), -1)
    np.minimum.at(lowest, group, train.label)
    np.maximum.at(highest, group, train.label)
    drop = np.zeros(len(train), dtype=bool)
    evaluation_duplicates: dict[str, int] = {}
    training_duplicates: dict[str, int] = {}
    near_rows: dict[str, tuple[int, int]] = {}
    small = None if near is None else thumbnails(train.images)
    for table, others in zip(evaluation, theirs, strict=True):
        here, there = np.isin(pixels, others), np.isin(others, pixels)
        drop |= here
        evaluation_duplicates[table.split] = int(there.sum())
        training_duplicates[table.split] = int(here.sum())
        if small is not None and near is not None:
            near_here, near_there = find_near_duplicates(small, thumbnails(table.images), near)
            drop |= near_here
            near_rows[table.split] = int((near_there & ~there).sum()), int((near_here & ~here).sum())
    return DuplicateReport(
        groups=int((size > 1).sum()),
        within_train=int((size - 1).sum()),
        conflicting_groups=int((lowest != highest).sum()),
        evaluation_duplicates=evaluation_duplicates,
        training_duplicates=training_duplicates,
        near_duplicates=near_rows,
        rows_to_drop=np.flatnonzero(drop),
    )


def _comparable(hashes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns content hashes as numbers, which take an eighth of the memory; as they are where one is no number."""
    if any(one.dtype != "<U16" for one in hashes):
        return list(hashes)
    try:
        return [hash_numbers(one) for one in hashes]
    except ValueError:
        return list(hashes)


def check_sources(source_hashes: Iterable[str], evaluation: Sequence[SampleTable], purpose: str) -> None:
    """Checks that nothing is derived from an evaluation image (contract C8).

    Args:
        source_hashes: content hashes of the images to derive from.
        evaluation: tables of validation and test rows.
        purpose: what the images are for, e.g. "layout source".

    Raises:
        ValueError: a source is a validation or test image; the line names the first and counts all.
    """
    sources = np.array(sorted(set(source_hashes)), dtype=str)
    for table in evaluation:
        leaked = np.flatnonzero(np.isin(table.content_hash, sources))
        if len(leaked):
            raise ValueError(
                f"{purpose}: found {table.split} image '{table.sample_id[leaked[0]]}' ({len(leaked)} {table.split} "
                "images in all), expected training images only"
            )
