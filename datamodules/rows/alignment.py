"""Faces brought onto one template before anything else happens to them, by what is known of where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.captions.streamed_images import StreamedImages
from datamodules.rows.found_faces import Region, found_faces
from datamodules.rows.images import BadImageError, FileImages
from datamodules.rows.sample_table import ImageSource, SampleTable
from datamodules.setting_range import check_range
from synfer.faces.face_alignment import aligned, points_of_box, similarity, template_points
from synfer.faces.face_detector import DETECTORS, load_detector
from synfer.faces.face_shape import resize_faces

_WARP = "synfer alignment 1"
"""Of the pixels that come out: another version gives others."""

_KINDS = ("none", "landmarks", "box", "detector")
_NOT_FOUND = ("error", "skip", "whole")


@dataclass(frozen=True)
class Alignment:
    """How faces are brought onto a template: turned, scaled and shifted, never squashed or mirrored.

    Attributes:
        kind: "none"; "landmarks" = by the five points that the data set gives; "box" = by its boxes, in which the
            points have their usual places; "detector" = by boxes that a detector finds.
        template: "arcface", or x and y of five points as shares of the side: the eye on the left of the picture, the
            one on the right, nose, the mouth's left and right corner.
        margin: how much more is seen on each side, as a share of the template, in (−0.3, 3].
        detector: "haar" = searches also pictures of which the data set gives no points or box; null = none does. With
            ``kind: detector`` null is "haar". Needs the extra ``faces``.
        not_found: what becomes of a picture without a face, or whose points cannot be those of one: "error", "skip" =
            it is left out, "whole" = it stays as it is; counted and named in each case.
        synthetic: "made" = synthetic faces lie on the template, for their generator has learned from faces on it;
            "align" = they are brought onto it as real ones are. null is refused where there are any.

    Raises:
        ValueError: a value outside its range.
    """

    kind: Literal["none", "landmarks", "box", "detector"] = "none"
    template: str | list[float] = "arcface"
    margin: float = 0.1
    detector: str | None = None
    not_found: Literal["error", "skip", "whole"] = "error"
    synthetic: Literal["made", "align"] | None = None

    def __post_init__(self) -> None:
        check_range("alignment.kind", self.kind, self.kind in _KINDS, f"one of {', '.join(_KINDS)}")
        check_range("alignment.not_found", self.not_found, self.not_found in _NOT_FOUND, "error, skip or whole")
        made = self.synthetic in (None, "made", "align")
        check_range("alignment.synthetic", self.synthetic, made, "made, align or null")
        known = self.detector is None or self.detector in DETECTORS
        check_range("alignment.detector", self.detector, known, f"{', '.join(DETECTORS)} or null")
        try:
            template_points(self.template, self.margin)
        except ValueError as error:
            raise ValueError(f"data.alignment: {error}") from None

    @property
    def is_on(self) -> bool:
        """Whether anything is aligned."""
        return self.kind != "none"

    @property
    def searched_by(self) -> str | None:
        """Name of the detector that searches, first or last; None = none does."""
        return self.detector or ("haar" if self.kind == "detector" else None)

    def template_points(self) -> np.ndarray:
        """Returns the template's points as shares of the side, float64 (5, 2)."""
        return template_points(self.template, self.margin)

    def check_beside(self, synthetic_ratio: float, has_set: bool) -> None:
        """Checks that it is said how synthetic faces lie.

        Args:
            synthetic_ratio: ``data.synthetic_ratio``.
            has_set: whether they come from a finished set.

        Raises:
            ValueError: it is not, or faces made during the run are to be aligned.
        """
        if not self.is_on or not synthetic_ratio:
            return
        check_range(
            "alignment.synthetic",
            self.synthetic,
            self.synthetic is not None,
            "made (by a generator that has learned from faces on this template) or align, beside synthetic faces",
        )
        online = not has_set and self.synthetic == "align"
        check_range("alignment.synthetic", self.synthetic, not online, "made where faces are made during the run")


class AlignedImages:
    """Images of another source, brought onto a template.

    Args:
        source: N images.
        matrices: float64 (N, 2, 3), from the template's frame to the whole picture; NaN = the picture as the source
            gives it, its central square.
        side: in pixels.
        names: of what is on each, N: the same name, the same face.
    """

    def __init__(self, source: Any, matrices: np.ndarray, side: int, names: Sequence[str]) -> None:
        self.source, self.matrices, self.side, self.names = source, matrices, side, np.asarray(names)

    def __len__(self) -> int:
        return len(self.matrices)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 1 or 3, side, side).

        Raises:
            BadImageError: a face lies outside its picture.
        """
        faces = [self._one(int(row)) for row in rows]
        if len({face.shape[0] for face in faces}) > 1:
            faces = [face.expand(3, -1, -1) for face in faces]
        return torch.stack(faces)

    def select(self, rows: np.ndarray) -> AlignedImages:
        """Returns the images of these rows, in this order."""
        return AlignedImages(self.source.select(rows), self.matrices[rows], self.side, self.names[rows])

    def whole(self, row: int) -> np.ndarray:
        """Returns the whole picture, uint8 (H, W) or (H, W, 3)."""
        found: np.ndarray = self.source.whole(row)
        return found

    def _one(self, row: int) -> Tensor:
        if np.isnan(self.matrices[row]).any():
            return resize_faces(self.source.batch(np.array([row])), self.side)[0]
        picture = self.whole(row)
        x, y = self.matrices[row] @ np.array([0.5, 0.5, 1.0])
        if not (0 <= x <= picture.shape[1] and 0 <= y <= picture.shape[0]):
            where = f"{self.source.place(row)[0]}: " if isinstance(self.source, FileImages) else ""
            raise BadImageError(
                f"{where}found the face at {x:.0f},{y:.0f} of a picture of {picture.shape[1]}x{picture.shape[0]}, "
                "expected it inside (data.alignment: are the points those of this picture?)"
            )
        face = aligned(picture, self.matrices[row], self.side)
        if face.ndim == 2:
            grey = torch.from_numpy(face)[None]
            return grey.expand(3, -1, -1) if isinstance(self.source, FileImages) else grey
        return torch.from_numpy(face).permute(2, 0, 1)


def align_table(table: SampleTable, settings: Alignment, side: int) -> SampleTable:
    """Returns a table whose faces lie on the template; a note says how they were found, and which were not.

    Args:
        table: rows of one split.
        settings: as the run has them.
        side: of the faces that come out, in pixels.

    Raises:
        ValueError: the data set gives no points (or boxes) at all, a face is not found and ``not_found`` is "error", no
            row is left, or the pictures cannot be had as a whole.
    """
    if not settings.is_on:
        return table
    if isinstance(table.images, StreamedImages) or not hasattr(table.images, "whole"):
        raise ValueError(
            f"data.alignment.kind={settings.kind}: found pictures of split '{table.split}' that are read as a stream, "
            "expected data.alignment.kind=none with them"
        )
    template, boxes = settings.template_points(), _boxes(table.images)
    matrices = np.full((len(table), 2, 3), np.nan)
    by = np.full(len(table), "", dtype="U9")
    if settings.kind != "detector":
        _by_what_is_known(table, settings.kind, boxes, template, matrices, by)
    searched = np.flatnonzero(by == "") if settings.searched_by is not None else np.zeros(0, dtype=np.int64)
    names = _names(table, boxes)
    if len(searched):
        _search(table, searched, boxes, names, str(settings.searched_by), template, matrices, by)
    counts = {kind: int((by == kind).sum()) for kind in _KINDS[1:] if (by == kind).any()}
    lost = np.flatnonzero(by == "")
    first = ", ".join(f"'{name}'" for name in table.sample_id[lost[:3]]) + (", …" if len(lost) > 3 else "")
    if len(lost) and settings.not_found == "error":
        raise ValueError(
            f"data.alignment.kind={settings.kind}: found no face in {len(lost)} of {len(table)} pictures of split "
            f"'{table.split}' ({first}), expected one in each{_way_out(settings)}"
        )
    kept = {"skip": "left out", "whole": "kept as they are"}.get(settings.not_found, "")
    said = ", ".join(f"{count} by {kind}" for kind, count in counts.items()) or "none"
    rank_zero_info(
        f"data.alignment: {table.split}: {said} of {len(table)} faces brought onto the template"
        + (f"; no face found in {len(lost)}, {kept}: {first}" if len(lost) else "")
    )
    record: dict[str, Any] = {
        "kind": settings.kind,
        "template": settings.template,
        "margin": settings.margin,
        "by": counts,
        "not_found": len(lost),
        "policy": settings.not_found,
    }
    whole = [
        f"{_WARP}\0{name}\0{hashlib.sha256(matrix.tobytes()).hexdigest()[:16]}"
        for name, matrix in zip(names, matrices, strict=True)
    ]
    found = replace(table, images=AlignedImages(table.images, matrices, side, whole), alignment=record)
    if not len(lost) or settings.not_found == "whole":
        return found
    if len(lost) == len(table):
        raise ValueError(f"data.alignment: found no face in any picture of split '{table.split}', expected some")
    lines = tuple(f"{table.sample_id[row]}: found no face, expected one (data.alignment)" for row in lost)
    report = replace(table.report, skipped=(*table.report.skipped, *lines))
    return replace(found.select(np.flatnonzero(by != "")), report=report)


def _by_what_is_known(
    table: SampleTable,
    kind: str,
    boxes: Sequence[Region | None],
    template: np.ndarray,
    matrices: np.ndarray,
    by: np.ndarray,
) -> None:
    """Fills in what the points or the boxes of the data set tell."""
    known = np.full((len(table), 5, 2), np.nan)
    if kind == "landmarks" and table.landmarks is not None:
        known = table.landmarks.astype(np.float64) + 0.5  # whole numbers are the centres of pixels
    for row, box in enumerate(boxes if kind == "box" else ()):
        if box is not None:
            known[row] = points_of_box(box)
    for row in np.flatnonzero(np.isfinite(known).all(axis=(1, 2))).tolist():
        matrix = similarity(known[row], template)
        if matrix is not None:
            matrices[row], by[row] = matrix, kind


def _search(
    table: SampleTable,
    rows: np.ndarray,
    boxes: Sequence[Region | None],
    names: Sequence[str],
    detector: str,
    template: np.ndarray,
    matrices: np.ndarray,
    by: np.ndarray,
) -> None:
    """Fills in what a detector finds."""
    images: Any = table.images
    finder = load_detector(detector)
    found = found_faces(
        [names[row] for row in rows],
        lambda place: images.whole(int(rows[place])),
        [boxes[row] for row in rows],
        finder,
        f"{detector}-{finder.version}",
    )
    for row, box in zip(rows, found, strict=True):
        matrix = None if box is None else similarity(points_of_box(box), template)
        if matrix is not None:
            matrices[row], by[row] = matrix, "detector"


def _boxes(images: ImageSource) -> list[Region | None]:
    box_of = getattr(images, "box", None)
    return [None if box_of is None else box_of(row) for row in range(len(images))]


def _names(table: SampleTable, boxes: Sequence[Region | None]) -> list[str]:
    """Returns for each row what is on its whole picture, and where.

    The content hash says it, but that of a box knows nothing of what lies around it: there the file must be the same.
    """
    names = []
    images: Any = table.images
    for row, (digest, box) in enumerate(zip(table.content_hash.tolist(), boxes, strict=True)):
        file = "" if box is None else images.file_key(row)
        names.append(f"{digest}\0{box or ''}\0{file}")
    return names


def _way_out(settings: Alignment) -> str:
    ways = ["data.alignment.not_found=skip or whole"]
    if settings.searched_by is None:
        ways.insert(0, "data.alignment.detector=haar searches them")
    return f" ({', '.join(ways)})"
