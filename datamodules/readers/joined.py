"""Several data sets, or several synthetic sets, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.reader import Reader, Split
from datamodules.rows.images import Box
from datamodules.rows.sample_table import ImageSource, ReadReport, SampleTable, affect_of
from synfer.foundation.on_rank_zero import warn_on_rank_zero
from synfer.labels.annotator_agreement import pooled_agreement


class JoinedReader(Reader):
    """Reads the same split of several readers, one after the other: the sets of two synthesisers, say.

    Real faces and made ones are not joined: each row would have to say which it is.

    Where sample ids occur in more than one of them, each gets the number of its reader in front ("0/…", "1/…").
    Captions and action units stay where all of them have some, of the same names, and are unknown otherwise; action
    units also where the numbers are of another kind: presence is never mixed with intensity. Valence and arousal stay
    wherever they are known. Attributes stay too, and are unknown for the rows of a reader that does not have them. How
    far annotators agree is told of all faces that several have voted on.

    Args:
        readers: at least two, of one label space.

    Raises:
        ValueError: fewer than two, or other label spaces.
    """

    def __init__(self, readers: list[Reader]) -> None:
        if len(readers) < 2:
            raise ValueError(f"JoinedReader.readers: found {len(readers)}, expected at least two")
        spaces = {tuple(reader.label_space) for reader in readers}
        if len(spaces) > 1:
            shown = " and ".join(", ".join(space) for space in sorted(spaces))
            raise ValueError(f"JoinedReader.readers: found the label spaces {shown}, expected one")
        self.readers = readers
        (self.label_space,) = spaces

    def source(self) -> dict[str, str | None]:
        """Returns the readers' names and labellings, joined by "+"."""
        found = [reader.source() for reader in self.readers]
        labels = [source["labels"] for source in found]
        names = "+".join(str(source["reader"]) for source in found)
        return {"reader": names, "labels": None if None in labels else "+".join(map(str, labels))}

    def has_split(self, split: Split) -> bool:
        """Whether one of the readers has rows of a split."""
        return any(reader.has_split(split) for reader in self.readers)

    def fit_size(self, image_size: int) -> None:
        """Tells the readers."""
        for reader in self.readers:
            reader.fit_size(image_size)

    def want_landmarks(self) -> None:
        """Tells all of them."""
        for reader in self.readers:
            reader.want_landmarks()

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of all readers.

        Raises:
            ValueError: one of them has no such split, their images have other sizes, or only some of them are made.
        """
        tables = [reader.read(split) for reader in self.readers]
        if len({table.is_synthetic for table in tables}) > 1:
            kinds = " and ".join("synthetic" if table.is_synthetic else "real" for table in tables)
            raise ValueError(
                f"JoinedReader.readers: found {kinds} faces, expected one kind (real ones in data.reader, synthetic "
                "ones in data.synthetic_reader)"
            )
        ids = [table.sample_id for table in tables]
        if len(np.unique(np.concatenate(ids))) < sum(map(len, ids)):
            ids = [np.array([f"{number}/{name}" for name in some]) for number, some in enumerate(ids)]
        units = [table.au for table in tables if table.au is not None]
        named = len(units) == len(tables) and len({table.au_names for table in tables}) == 1
        of_units = [_kinds_of_units(table) for table in tables]
        if named and any(one != of_units[0] for one in of_units):
            named = False
            warn_on_rank_zero(
                f"JoinedReader.readers: found action units of different kinds in split '{split}' (presence beside "
                "intensity, say), which are not mixed: they are unknown for all of these rows"
            )
        captions = [table.caption for table in tables if table.caption is not None]
        return replace(
            tables[0],
            images=_JoinedImages([table.images for table in tables]),
            label=np.concatenate([table.label for table in tables]),
            soft_label=np.concatenate([table.soft_label for table in tables]),
            sample_id=np.concatenate(ids),
            content_hash=np.concatenate([table.content_hash for table in tables]),
            au=np.concatenate(units) if named else None,
            au_source=_joined_sources(tables) if named else None,
            affect=None if all(t.affect is None for t in tables) else np.concatenate([affect_of(t) for t in tables]),
            caption=np.concatenate(captions) if len(captions) == len(tables) else None,
            group=_joined_groups(tables),
            attributes=_joined_attributes(tables),
            landmarks=_joined_landmarks(tables),
            report=_joined_reports([table.report for table in tables]),
        )


class _JoinedImages:
    """Images of several sources, by a number that runs through all of them; grey beside colour becomes colour."""

    def __init__(self, parts: Sequence[ImageSource], rows: np.ndarray | None = None) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows
        shapes = [tuple(part.batch(np.array([0])).shape[-3:]) for part in self._parts if len(part)]
        sizes = {shape[1:] for shape in shapes}
        if len(sizes) > 1:
            shown = " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
            raise ValueError(f"JoinedReader: found images of {shown} pixels, expected one size (convert one set)")
        self._shape = (max(shape[0] for shape in shapes), *shapes[0][1:])

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Returns uint8 (n, 1 or 3, H, W) for int64 row numbers (n,)."""
        wanted = self._rows[rows]
        owner = np.searchsorted(self._starts, wanted, side="right") - 1
        images = torch.empty(len(wanted), *self._shape, dtype=torch.uint8)
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            found = self._parts[number].batch(wanted[places] - self._starts[number])
            images[torch.from_numpy(places)] = found.expand(-1, *self._shape)
        return images

    def select(self, rows: np.ndarray) -> _JoinedImages:
        """Returns the images of these rows, in this order."""
        return _JoinedImages(self._parts, self._rows[rows])

    def whole(self, row: int) -> np.ndarray:
        """Returns the whole picture of one row, uint8 (H, W) or (H, W, 3)."""
        found: np.ndarray = self._of_part(row, "whole")
        return found

    def box(self, row: int) -> Box | None:
        """Returns the box of the face in one picture; None where its source has none."""
        owner, _ = self._place(row)
        return self._of_part(row, "box") if hasattr(self._parts[owner], "box") else None

    def file_key(self, row: int) -> str:
        """Returns what changes when the file of one row does."""
        return str(self._of_part(row, "file_key"))

    def _place(self, row: int) -> tuple[int, int]:
        owner = int(np.searchsorted(self._starts, self._rows[row], side="right")) - 1
        return owner, int(self._rows[row] - self._starts[owner])

    def _of_part(self, row: int, what: str) -> Any:
        owner, place = self._place(row)
        return getattr(self._parts[owner], what)(place)


def _joined_groups(tables: Sequence[SampleTable]) -> np.ndarray | None:
    """Returns the groups where all readers have some; those of different readers are different ones."""
    groups = [table.group for table in tables if table.group is not None]
    if len(groups) < len(tables):
        return None
    return np.concatenate([np.char.add(f"{number}/", some) for number, some in enumerate(groups)])


def _kinds_of_units(table: SampleTable) -> dict[str, str] | None:
    """Returns what kind of number each action unit of a table is; None = the reader's own, which says nothing of it."""
    if table.au_source is None:
        return None
    return {name: column["kind"] for name, column in table.au_source.get("columns", {}).items()}


def _joined_sources(tables: Sequence[SampleTable]) -> dict[str, Any] | None:
    """Returns where the action units of all tables come from: the one source, or all of them."""
    sources = [table.au_source for table in tables if table.au_source is not None]
    if not sources:
        return None
    return sources[0] if all(source == sources[0] for source in sources) else {**sources[0], "joined": sources}


def _joined_attributes(tables: Sequence[SampleTable]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for table in tables for name in table.attributes)
    return {
        name: np.concatenate([table.attributes.get(name, np.full(len(table), "")) for table in tables])
        for name in names
    }


def _joined_landmarks(tables: Sequence[SampleTable]) -> np.ndarray | None:
    """Returns the points of all faces, NaN where a reader has none; None where none has any."""
    if all(table.landmarks is None for table in tables):
        return None
    unknown = [np.full((len(table), 5, 2), np.nan, dtype=np.float32) for table in tables]
    return np.concatenate([u if t.landmarks is None else t.landmarks for t, u in zip(tables, unknown, strict=True)])


def _joined_reports(reports: Sequence[ReadReport]) -> ReadReport:
    excluded: dict[str, int] = {}
    for report in reports:
        for reason, count in report.excluded.items():
            excluded[reason] = excluded.get(reason, 0) + count
    skipped = tuple(line for report in reports for line in report.skipped)
    agreement = pooled_agreement([report.agreement for report in reports])
    return ReadReport(sum(report.read for report in reports), skipped, excluded, agreement)
