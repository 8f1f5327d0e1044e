"""What a set that holds its pictures has of one split: columns of a million rows, and no object for each of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from datamodules.captions.caption_row import USUAL_IMAGE, chosen_column
from synfer.faces.affect import AFFECT


class Cells(Protocol):
    """Encoded pictures by row number; none is read before it is asked for."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> bytes | None:
        """Returns the content of a picture's file; None where there is none.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def place(self, row: int) -> str:
        """Returns where a row stands in the set, unique there."""
        ...


@dataclass(frozen=True)
class TableColumns:
    """Which columns (of a JSON file: entries) hold what.

    Attributes:
        image: the picture; None = a usual name.
        label: the label.
        sample_id: a unique name of the row; None = that of the picture's file, or its place.
        group: whom it shows, or what else belongs on one side of a split; None = not known.
        affect: valence and arousal; empty = not known.
    """

    image: str | None = None
    label: str = "label"
    sample_id: str | None = None
    group: str | None = None
    affect: tuple[str, ...] = ()

    def among(self, names: list[str], where: str) -> TableColumns:
        """Returns the columns by the names that they have among these.

        Raises:
            ValueError: one is not there.
        """
        image = chosen_column("image", self.image, USUAL_IMAGE, names, where)
        roles = [("label", self.label), ("id", self.sample_id), ("group", self.group)]
        for role, name in [*roles, *zip(AFFECT, self.affect, strict=False)]:
            if name is not None:
                chosen_column(role, name, (), names, where)
        return TableColumns(image, self.label, self.sample_id, self.group, self.affect)

    def also(self) -> list[str]:
        """Returns the columns beside those of pictures and labels."""
        return [name for name in (self.sample_id, self.group, *self.affect) if name is not None]


@dataclass(frozen=True)
class CodedColumn:
    """A column of few different values.

    Attributes:
        codes: int32 (N,), position in ``values``; −1 = nothing stands there.
        values: the different values.
    """

    codes: np.ndarray
    values: list[Any]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> CodedColumn:
        """Returns an Arrow column as codes."""
        encoded = column.combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):  # as combine_chunks gives a column without rows
            encoded = pa.concat_arrays(encoded.chunks) if encoded.num_chunks else pa.array([]).dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return cls(codes.astype(np.int32), encoded.dictionary.to_pylist())

    @classmethod
    def of_values(cls, values: Iterable[Any]) -> CodedColumn:
        """Returns plain values as codes; None and what cannot be a key of a dictionary become text or nothing."""
        known: dict[Any, int] = {}
        codes = []
        for value in values:
            key = value if value is None or isinstance(value, (str, int, float)) else str(value)
            codes.append(-1 if key is None else known.setdefault(key, len(known)))
        return cls(np.array(codes, dtype=np.int32), list(known))

    @classmethod
    def joined(cls, parts: Sequence[CodedColumn]) -> CodedColumn:
        """Returns the rows of several columns, one after the other."""
        known: dict[tuple[type, Any], int] = {}
        codes = []
        for part in parts:
            table = [known.setdefault((type(value), value), len(known)) for value in part.values]
            codes.append(np.array([*table, -1], dtype=np.int32)[part.codes])
        return cls(np.concatenate(codes) if codes else np.zeros(0, dtype=np.int32), [value for _, value in known])

    @classmethod
    def joined_each(cls, parts: Sequence[Sequence[CodedColumn]]) -> tuple[CodedColumn, ...]:
        """Returns the same for several columns: one entry of ``parts`` for each file, all of as many columns."""
        return tuple(cls.joined(columns) for columns in zip(*parts, strict=True))

    def named(self, names: Sequence[str] | None) -> CodedColumn:
        """Returns the column with the names of a ``ClassLabel`` in place of its numbers; others stay as they are."""
        if names is None:
            return self
        is_code = [isinstance(value, int) and 0 <= value < len(names) for value in self.values]
        values = [names[value] if known else value for value, known in zip(self.values, is_code, strict=True)]
        return CodedColumn(self.codes, values)


@dataclass(frozen=True)
class TablePart:
    """Consecutive rows that lie in one file.

    Attributes:
        start: number of its first row in the split.
        count: of its rows.
        identity: what is read: the file and the column of pictures.
        state: what changes when the file does: length and time of change; None = not known, so that nothing that was
            found out about it may be kept.
        again: some rows (numbers from ``start``), read once more from the file itself, past any copy.
    """

    start: int
    count: int
    identity: str
    state: str | None
    again: Callable[[np.random.Generator], list[tuple[int, bytes | None]]]


class TableFile(ABC):
    """What a layout finds in one file.

    Attributes:
        label: n labels.
        names: n names.
        groups: n groups; None = the set has none.
        affect: n valences and n arousals; empty = the set has none.
        identity: as in :class:`TablePart`.
        state: likewise.
    """

    label: CodedColumn
    names: pa.ChunkedArray
    groups: CodedColumn | None
    affect: Sequence[CodedColumn]
    identity: str
    state: str | None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def again(self, random: np.random.Generator) -> list[tuple[int, bytes | None]]:
        """Returns some rows, as :class:`TablePart` has them."""


@dataclass
class FoundTable:
    """The rows of one split.

    Attributes:
        cells: N pictures.
        label: N labels as they are stored, numbers already by their names where the set keeps such.
        name: N names, null or "" where a row has none.
        group: N groups; None = the set has none.
        affect: N valences and N arousals as they are stored; empty = the set has none.
        parts: the files that the rows lie in, in their order.
        bad: a line for each row that cannot be one.
        excluded: reason → files or rows that are passed over.
    """

    cells: Cells
    label: CodedColumn
    name: pa.ChunkedArray
    group: CodedColumn | None
    parts: list[TablePart]
    bad: list[str] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)
    affect: tuple[CodedColumn, ...] = ()

    @classmethod
    def of_files(cls, files: Sequence[TableFile], cells: Sequence[Cells]) -> FoundTable:
        """Returns the rows of several files, one after the other.

        Args:
            files: their small columns.
            cells: their pictures, file by file.
        """
        groups = [file.groups for file in files if file.groups is not None]
        starts = np.cumsum([0, *map(len, files)]).tolist()
        return cls(
            cells=JoinedCells(cells),
            label=CodedColumn.joined([file.label for file in files]),
            name=pa.chunked_array([chunk for file in files for chunk in file.names.chunks], pa.string()),
            group=CodedColumn.joined(groups) if groups else None,
            parts=[
                TablePart(start, len(file), file.identity, file.state, file.again)
                for start, file in zip(starts, files, strict=False)
            ],
            affect=CodedColumn.joined_each([file.affect for file in files]),
        )


class PictureSet(Protocol):
    """A set that holds its pictures, in one layout.

    Attributes:
        splits: which of train, val and test it has.
    """

    splits: tuple[str, ...]

    def table(self, split: str) -> FoundTable:
        """Returns the rows of one of its splits.

        Raises:
            ValueError: a file is damaged, or a column is missing.
        """
        ...


class JoinedCells:
    """Pictures of several files, by a number that runs through all of them.

    Args:
        parts: the files' own pictures.
    """

    def __init__(self, parts: Sequence[Cells]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *map(len, self._parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, row: int) -> bytes | None:
        """Returns the content of a picture's file."""
        number = self._owner(row)
        return self._parts[number].read(row - int(self._starts[number]))

    def place(self, row: int) -> str:
        """Returns where a row stands."""
        number = self._owner(row)
        return self._parts[number].place(row - int(self._starts[number]))

    def _owner(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1
