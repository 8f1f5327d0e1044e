"""Pictures of a test: generated faces by expression, beside real ones, and beside the nearest training faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from synfer.pictures.captioned_grid import FaceColumns, save_captioned_grid
from synfer.pictures.sample_grid import save_sample_grid

COLUMNS = 3
"""Faces of each expression in one set of a comparison."""
_GRID_COLUMNS, _PAIRS = 8, 8


def rows_of(label: Tensor, code: int) -> list[int]:
    """Returns the rows of one class among the labels (n,)."""
    return (label.cpu() == code).nonzero()[:, 0].tolist()


def save_expression_grid(images: Tensor, label: Tensor, codes: Sequence[int], names: Sequence[str], path: Path) -> None:
    """Writes up to eight generated faces of each expression, a row per expression.

    Args:
        images: uint8 (n, 3, H, W).
        label: int64 (n,).
        codes: the label of each row of the picture.
        names: what is written beside each row.
        path: PNG; nothing is written where there is no face for each expression.
    """
    columns = min(_GRID_COLUMNS, len(images) // len(names))
    if columns:
        rows = [row for code in codes for row in rows_of(label, code)[:columns]]
        save_sample_grid(images[rows], names, columns, path)


def first_faces(images: Tensor, label: Tensor, codes: Sequence[int]) -> list[Tensor]:
    """Returns the first :data:`COLUMNS` of the images (n, 3, H, W) of each class."""
    return [images[rows_of(label[: len(images)], code)[:COLUMNS]] for code in codes]


def save_face_comparison(
    sets: Sequence[tuple[str, list[Tensor]]],
    names: Sequence[str],
    probability: Callable[[Tensor, str], list[float]],
    path: Path,
) -> None:
    """Writes sets of faces side by side, with the probability of the asked expression under each face.

    Args:
        sets: title and, for each expression, uint8 faces (c, 3, H, W); c may be 0.
        names: the expressions.
        probability: of an expression in faces, as a judge sees it.
        path: PNG.
    """
    groups = []
    for title, faces in sets:
        captions: list[list[str]] = []
        for name, row in zip(names, faces, strict=True):
            captions.append([f"{value:.0%}" for value in probability(row, name)] if len(row) else [])
        groups.append(FaceColumns(title, faces, captions))
    save_captioned_grid(groups, names, path)


def nearest_pairs(distance: Tensor) -> Tensor:
    """Returns the rows of the eight smallest distances (n,), nearest first, on their device."""
    return distance.argsort()[:_PAIRS]


def save_nearest_pairs(
    generated: Tensor, training: Tensor, distance: Sequence[float], ids: Sequence[str], names: Sequence[str], path: Path
) -> None:
    """Writes generated faces, each beside the training face that is nearest to it.

    Args:
        generated: uint8 (n, 3, H, W).
        training: likewise.
        distance: between the two, n numbers.
        ids: sample ids of the training faces.
        names: expressions of the generated faces.
        path: PNG.
    """
    groups = [
        FaceColumns("generated", list(generated[:, None]), [[f"{d:.3g}"] for d in distance]),
        FaceColumns("training", list(training[:, None]), [[name] for name in ids]),
    ]
    save_captioned_grid(groups, names, path)
