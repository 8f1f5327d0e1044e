"""Rows of the tables of one tool, columns by their names alone, by what is known of how that tool writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from datamodules.au_tables.au_source import AUColumn, AUScale, AUSource
from datamodules.au_tables.au_table import UnitRows, looks_like_one, split_column
from datamodules.au_tables.picture_names import PictureNames
from datamodules.au_tables.table_cells import ID_COLUMNS, TableCells
from datamodules.au_tables.table_files import read_cells, table_files

_FRAMES = "data.au_table.id_template such as '{file}/{frame:05d}.jpg'"


def always_seen(cells: TableCells, row: int, values: Sequence[float]) -> bool:
    """The tool leaves cells empty, or has no row, where it found no face."""
    return True


@dataclass(frozen=True)
class ToolProfile:
    """How one tool writes.

    Attributes:
        tool: its name, for people.
        scales: ending of a column of an action unit ("_r") → its scale. Of two columns of one action unit the one whose
            ending comes first counts alone, in every row.
        expected: what a table has to hold, for the error of one that holds none of it, after the columns found.
        refused: what to say, after the name of a column that looks like an action unit and has another ending; "" =
            such columns are passed over and named.
        face: columns with the number of a face in its picture.
        confidence: columns with how sure the tool is of a face, in [0, 1]: of several faces the surest counts.
        many_faces: whether a picture may have several rows.
        frame: columns with the number of a frame.
        first_frame: the number of the first one; None = unknown.
        seen: whether there was a face, given the table, a row and its action units.
    """

    tool: str
    scales: Mapping[str, AUScale]
    expected: str
    refused: str = ""
    face: tuple[str, ...] = ()
    confidence: tuple[str, ...] = ()
    many_faces: bool = False
    frame: tuple[str, ...] = ("frame",)
    first_frame: int | None = None
    seen: Callable[[TableCells, int, Sequence[float]], bool] = always_seen


@dataclass
class _Found:
    """What has been read so far."""

    columns: dict[str, tuple[str, AUScale]] = field(default_factory=dict)
    not_read: dict[str, None] = field(default_factory=dict)
    clipped: int = 0
    ids: list[str] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    best: dict[str, tuple[float, int]] = field(default_factory=dict)  # of a picture: how sure, and the place of its row


def read_tool_rows(
    path: Path,
    profile_of: Callable[[TableCells], ToolProfile],
    id_column: str | None,
    id_template: str | None,
    also: Sequence[str] = (),
) -> UnitRows:
    """Reads the files of a tool.

    Args:
        path: one file, or a folder with one per picture or per video.
        profile_of: how the tool writes, given a table of it.
        id_column: column that names the pictures; None = a usual one, where there is one.
        id_template: name of the picture of a row where no column has it (:class:`PictureNames`).
        also: columns beside action units and names that the profile looks at.

    Raises:
        ValueError: no action units, other ones in another file, a value outside its scale, a picture twice, frames
            where pictures are expected, or no names of pictures.
    """
    wanted = {name.casefold() for name in (*ID_COLUMNS, *also, *(() if id_column is None else (id_column,)))}
    names = None if id_template is None else PictureNames(id_template)
    files = table_files(path)
    found = _Found()
    tool = ""
    for file in files:
        cells = read_cells(file, lambda name: name in wanted or looks_like_one(name))
        profile = profile_of(cells)
        tool = tool or profile.tool
        columns = _columns(cells, profile, found)
        _same_as_before(cells, columns, files[0], found)
        own = file.relative_to(path).with_suffix("").as_posix() if path.is_dir() else None
        _add_rows(cells, profile, columns, list(_names(cells, profile, id_column, names, own)), found)
    source = AUSource(
        tool,
        tuple(AUColumn(name, column, scale) for name, (column, scale) in found.columns.items()),
        tuple(found.not_read),
        found.clipped,
    )
    array = np.array(found.rows, dtype=np.float32).reshape(len(found.ids), len(found.columns))
    return UnitRows(found.ids, array, source)


def _columns(cells: TableCells, profile: ToolProfile, found: _Found) -> dict[str, tuple[int, AUScale]]:
    """Returns action unit → place and scale of its column, those of the first ending first."""
    by_ending: dict[str, dict[str, int]] = {ending: {} for ending in profile.scales}
    for place, text in enumerate(cells.header):
        name, ending = split_column(text)
        if name is None or ending not in by_ending:
            if looks_like_one(text) and profile.refused:
                raise ValueError(f"{cells.path}: found column '{text}', {profile.refused}")
            if looks_like_one(text):
                found.not_read[text] = None
            continue
        before = by_ending[ending].setdefault(name, place)
        if before != place:
            raise ValueError(
                f"{cells.path}: found action unit '{name}' 2 times, as '{cells.header[before]}' and as '{text}', "
                "expected it once"
            )
    columns: dict[str, tuple[int, AUScale]] = {}
    for ending, places in by_ending.items():
        for name, place in places.items():
            columns.setdefault(name, (place, profile.scales[ending]))
    if not columns:
        raise ValueError(f"{cells.path}: found no column of an action unit ({cells.columns_found}), {profile.expected}")
    return columns


def _same_as_before(cells: TableCells, columns: Mapping[str, tuple[int, AUScale]], first: Path, found: _Found) -> None:
    """Notes the columns of the first file, and refuses one with others; their order does not matter."""
    if not found.columns:
        found.columns |= {name: (cells.header[place], scale) for name, (place, scale) in columns.items()}
    before = {(name, scale) for name, (_, scale) in found.columns.items()}
    odd = sorted({name for name, _ in before ^ {(name, scale) for name, (_, scale) in columns.items()}})
    if odd:
        raise ValueError(
            f"{cells.path}: found other action units than in {first} ({', '.join(odd)}), expected those of one run of "
            "one tool"
        )


def _names(
    cells: TableCells, profile: ToolProfile, id_column: str | None, names: PictureNames | None, own: str | None
) -> Iterator[str]:
    """Yields the name of the picture of each row."""
    place, frame = cells.id_column(id_column), cells.find(*profile.frame)
    if names is not None:
        yield from _made_names(cells, profile, place, frame, names, own or cells.path.stem)
        return
    if place is None and own is None:
        raise ValueError(
            f"{cells.path}: found no column that names the pictures ({cells.columns_found}), expected one of "
            f"{', '.join(ID_COLUMNS)}, or data.au_table.id_column, or a folder with a file per picture, or {_FRAMES}"
        )
    frame_of: dict[str, str] = {}
    for row in range(len(cells)):
        name = own if place is None else cells.columns[place][row]
        if not name:
            assert place is not None
            raise ValueError(
                f"{cells.where(row)}: found nothing in column '{cells.header[place]}', expected the name of a picture"
            )
        if frame is not None and frame_of.setdefault(name, cells.columns[frame][row]) != cells.columns[frame][row]:
            raise ValueError(
                f"{cells.path}: found several frames of a video, expected a file per picture, or the names of the "
                f"frames: {_FRAMES}"
            )
        yield name


def _made_names(
    cells: TableCells, profile: ToolProfile, place: int | None, frame: int | None, names: PictureNames, file: str
) -> Iterator[str]:
    key = "data.au_table.id_template"
    if names.of_frames and frame is None:
        raise ValueError(
            f"{cells.path}: found no column {' or '.join(profile.frame)} ({cells.columns_found}), expected one for the "
            f"frame in {key}"
        )
    if "row" in names.parts and frame is not None:
        # Frames without a face are left out by some tools, and several faces are several rows.
        raise ValueError(
            f"{cells.path}: found '{{row}}' in {key} and a column '{cells.header[frame]}', expected '{{frame}}': rows "
            "of a video are not as many as its frames"
        )
    if "name" in names.parts and place is None:
        raise ValueError(f"{cells.path}: found no column for '{{name}}' in {key}, expected data.au_table.id_column")
    if profile.first_frame is None and not names.parts.isdisjoint({"frame0", "frame1"}):
        raise ValueError(
            f"{cells.path}: found '{{frame0}}' or '{{frame1}}' in {key}, expected '{{frame}}': which frame "
            "is the first is not known of this table"
        )
    for row in range(len(cells)):
        number = cells.whole_number(row, frame) if names.of_frames and frame is not None else 0
        counted = number - (profile.first_frame or 0)
        yield names.name(
            row=row,
            frame=number,
            frame0=counted,
            frame1=counted + 1,
            file=file,
            name="" if place is None else PurePosixPath(cells.columns[place][row]).stem,
        )


def _add_rows(
    cells: TableCells,
    profile: ToolProfile,
    columns: Mapping[str, tuple[int, AUScale]],
    names: Sequence[str],
    found: _Found,
) -> None:
    """Adds the rows of a file: of several faces in a picture the surest one that was seen."""
    face, confidence = cells.find(*profile.face), cells.find(*profile.confidence)
    faces: dict[str, set[object]] = {}
    ordered = [columns[name] for name in found.columns]
    for row, name in enumerate(names):
        values = [_scaled(cells, row, place, scale, found) for place, scale in ordered]
        sure = 0.0 if confidence is None else cells.number(row, confidence, 0, 1)
        if not profile.seen(cells, row, values):
            values = [math.nan] * len(values)
        if sure != sure or all(value != value for value in values):
            sure = -1.0  # any face that was seen comes first
        of_picture = faces.setdefault(name, set())
        number: object = "" if face is None else cells.columns[face][row]
        if profile.many_faces and not profile.face:  # they have no numbers: the same one twice is a row twice
            number = (sure, *map(str, values))
        if number in of_picture or (name in found.best and not (of_picture and profile.many_faces)):
            raise ValueError(f"{cells.where(row)}: found picture '{name}' twice, expected each picture once")
        of_picture.add(number)
        if name not in found.best:
            found.best[name] = (sure, len(found.ids))
            found.ids.append(name)
            found.rows.append(values)
        elif sure > found.best[name][0]:
            found.best[name] = (sure, found.best[name][1])
            found.rows[found.best[name][1]] = values


def _scaled(cells: TableCells, row: int, place: int, scale: AUScale, found: _Found) -> float:
    """Returns a cell in [0, 1]; a little outside is clipped where the tool is known for it, and counted."""
    value = cells.number(row, place, 0.0 - scale.beyond, scale.highest + scale.beyond) / scale.highest
    if value < 0 or value > 1:
        found.clipped += 1
        value = min(max(value, 0.0), 1.0)
    return value
