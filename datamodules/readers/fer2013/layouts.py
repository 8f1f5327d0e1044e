"""The four public layouts of FER2013, each turned into the same undecoded rows."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.readers.fer2013.ferplus_votes import VOTE_COLUMNS
from datamodules.readers.reader import BadSamples
from datamodules.rows.image_files import find_class_files, split_folders
from datamodules.rows.images import BadImageError, decode_image, read_image
from synfer.faces.expressions import canonical_expression

SIDE = 48
OFFICIAL_CODES = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Expression of each code 0–6 of the official release."""

FOLDERS_OF_USAGE = {
    "Training": ("train", "training"),
    "PublicTest": ("val", "valid", "validation", "publictest"),
    "PrivateTest": ("test", "privatetest"),
}
FERPLUS_FILE = "fer2013new.csv"


@dataclass
class FER2013Rows:
    """Undecoded rows of one usage, whatever the layout.

    Attributes:
        number: official row number, −1 in the folder layout.
        where: file or row, for errors.
        raw_code: label as found.
        code: label code 0–6, or 7 where it is not known.
        sample_id: unique names.
        image: index → uint8 (48, 48).
        votes: FER+ votes, None where there are none.
        left_out: reason → number of files that are no rows.
    """

    number: list[int]
    where: list[str]
    raw_code: list[object]
    code: np.ndarray
    sample_id: list[str]
    image: Callable[[int], np.ndarray]
    votes: list[list[int] | None] | None = None
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of rows."""
        return len(self.number)


Layout = Callable[[str, BadSamples], FER2013Rows]
"""Usage, where bad samples are noted → the rows of that usage."""


def detect_layout(root: Path, with_votes: bool) -> Layout:
    """Returns the function that reads the rows of one usage from the layout found in ``root``.

    Raises:
        FileNotFoundError: ``root`` is missing or holds no known layout, or FER+ votes are asked for and not there.
        ValueError: a file is damaged or lacks a column.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data.reader.init_args.root: found no folder '{root}', expected FER2013 there")
    files = sorted(path for path in root.glob("*.parquet") if not path.name.startswith("."))
    if files:
        _check_parquet(files, with_votes)
        return lambda usage, bad: _parquet_rows(files, usage, with_votes)
    for name in ("fer2013.csv", "icml_face_data.csv"):
        table = root / name
        if table.is_file():
            _csv_columns(table)
            votes = root / FERPLUS_FILE if with_votes else None
            if votes is not None and not votes.is_file():
                raise FileNotFoundError(
                    f"data.reader.init_args.root: found no '{FERPLUS_FILE}' beside {table}, expected it for FER+ labels"
                )
            return lambda usage, bad: _csv_rows(table, votes, usage, bad)
    folders = {f.name.lower(): f for f in sorted(root.iterdir()) if f.is_dir()}
    if split_folders(root, FOLDERS_OF_USAGE):
        if with_votes:
            raise FileNotFoundError(
                f"data.reader.init_args.root: found image folders in '{root}', which have no row numbers to join FER+ "
                "votes by, expected Parquet files or fer2013.csv"
            )
        return lambda usage, bad: _folder_rows(root, folders, usage, bad)
    raise FileNotFoundError(
        f"data.reader.init_args.root: found no FER2013 in '{root}', expected *.parquet, fer2013.csv, "
        "icml_face_data.csv or folders train/<expression> and test/<expression>"
    )


def _no_rows(where: Path, usage: str, counts: dict[str, int]) -> ValueError:
    found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "no rows at all"
    return ValueError(
        f"{where}: found no row with usage '{usage}' (found {found}), expected at least one; "
        "see data.reader.init_args.usages"
    )


def _codes(raw: Sequence[object]) -> np.ndarray:
    """Returns codes 0–6, and 7 for anything else."""
    known = {code: code for code in range(7)} | {str(code): code for code in range(7)}
    return np.array([known.get(value, 7) if isinstance(value, int | str) else 7 for value in raw], dtype=np.int64)


# Parquet ------------------------------------------------------------------------------------------------------------


def _check_parquet(files: list[Path], with_votes: bool) -> None:
    needed = ["row", "image", "label", "usage", *(["ferplus_votes"] if with_votes else [])]
    for file in files:
        try:
            names = pq.read_schema(file).names
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{file}: found a file that is not Parquet, expected FER2013 rows") from error
        missing = [name for name in needed if name not in names]
        if missing:
            raise ValueError(f"{file}: found no column '{missing[0]}' (found {', '.join(names)}), expected it")


def _parquet_rows(files: list[Path], usage: str, with_votes: bool) -> FER2013Rows:
    columns = ["row", "image", "label", "usage", *(["ferplus_votes"] if with_votes else [])]
    counts: Counter[str] = Counter()
    numbers: list[int] = []
    where: list[str] = []
    raw: list[object] = []
    data: list[bytes | None] = []
    votes: list[list[int] | None] = []
    for file in files:
        usages = pq.read_table(file, columns=["usage"])["usage"].to_pylist()
        counts.update(str(name) for name in usages)
        if usage not in usages:
            continue
        table = pq.read_table(file, columns=columns).filter(pa.array([name == usage for name in usages]))
        here = table["row"].to_pylist()
        if any(not isinstance(number, int) for number in here):
            raise ValueError(f"{file}: found a row without number in column 'row', expected integers")
        numbers += here
        where += [f"{file} row {number}" for number in here]
        raw += table["label"].to_pylist()
        # `datasets` stores an image as a struct of its bytes and its path.
        data += [cell.get("bytes") if isinstance(cell, dict) else cell for cell in table["image"].to_pylist()]
        if with_votes:
            votes += table["ferplus_votes"].to_pylist()
    if not numbers:
        raise _no_rows(files[0].parent, usage, counts)
    twice = [number for number, times in Counter(numbers).items() if times > 1]
    if twice:
        raise ValueError(f"{files[0].parent}: found row {twice[0]} more than once, expected each row in one file")
    return FER2013Rows(
        number=numbers,
        where=where,
        raw_code=raw,
        code=_codes(raw),
        sample_id=[f"fer2013-{number}" for number in numbers],
        image=lambda index: _grey(decode_image(data[index], where[index], SIDE)),
        votes=votes if with_votes else None,
    )


def _grey(image: np.ndarray) -> np.ndarray:
    """Returns (48, 48) for a face stored grey or as three (nearly) equal channels."""
    return image if image.ndim == 2 else np.rint(image.mean(axis=-1)).astype(np.uint8)


# CSV ----------------------------------------------------------------------------------------------------------------


def _csv_columns(table: Path) -> dict[str, int]:
    """Returns the position of each column; ``icml_face_data.csv`` has blanks before the names."""
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
    missing = [name for name in ("emotion", "pixels", "Usage") if name not in header]
    if missing:
        found = ", ".join(header)[:120] or "an empty file"
        raise ValueError(f"{table}: found no column '{missing[0]}' (found {found}), expected emotion, pixels, Usage")
    return {name: header.index(name) for name in ("emotion", "pixels", "Usage")}


def _data_lines(table: Path) -> Iterator[list[str]]:
    """Yields the cells of each row below the header."""
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        lines = csv.reader(file)
        next(lines, None)
        try:
            yield from (line for line in lines if line)
        except csv.Error as error:
            raise ValueError(
                f"{table} line {lines.line_num}: found broken CSV ({error}), expected quoted cells"
            ) from error


def _csv_rows(table: Path, votes_table: Path | None, usage: str, bad: BadSamples) -> FER2013Rows:
    position = _csv_columns(table)
    width = max(position.values()) + 1
    counts: Counter[str] = Counter()
    numbers: list[int] = []
    raw: list[object] = []
    pixels: list[str] = []
    total = 0
    for number, cells in enumerate(_data_lines(table)):
        total += 1
        if len(cells) < width:
            bad.add(f"{table} row {number}: found {len(cells)} cells, expected {width}")
            continue
        row_usage = cells[position["Usage"]].strip()
        counts[row_usage] += 1
        if row_usage == usage:
            numbers.append(number)
            raw.append(cells[position["emotion"]].strip())
            pixels.append(cells[position["pixels"]])
    if not numbers:
        bad.settle(of=total)
        raise _no_rows(table, usage, counts)
    where = [f"{table} row {number}" for number in numbers]
    return FER2013Rows(
        number=numbers,
        where=where,
        raw_code=raw,
        code=_codes(raw),
        sample_id=[f"fer2013-{number}" for number in numbers],
        image=lambda index: _parse_pixels(pixels[index], where[index]),
        votes=None if votes_table is None else _csv_votes(votes_table, numbers, total, usage),
    )


def _parse_pixels(text: str, where: str) -> np.ndarray:
    """Returns uint8 (48, 48) from 2,304 numbers in text."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            values = np.fromstring(text, dtype=np.int32, sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise BadImageError(
                f"{where}: found pixels that are not numbers, expected {SIDE * SIDE} of 0-255"
            ) from error
    if len(values) != SIDE * SIDE:
        raise BadImageError(f"{where}: found {len(values)} pixels, expected {SIDE}x{SIDE} = {SIDE * SIDE}")
    if values.min() < 0 or values.max() > 255:
        raise BadImageError(f"{where}: found pixels of {values.min()} to {values.max()}, expected 0 to 255")
    return values.astype(np.uint8).reshape(SIDE, SIDE)


def _csv_votes(table: Path, numbers: list[int], total: int, usage: str) -> list[list[int] | None]:
    """Returns the FER+ votes of these rows; both tables hold the same rows in the same order."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
    missing = [name for name in ("Usage", *VOTE_COLUMNS) if name not in header]
    if missing:
        raise ValueError(f"{table}: found no column '{missing[0]}', expected Usage, Image name and ten votes")
    usage_column, columns = header.index("Usage"), [header.index(name) for name in VOTE_COLUMNS]
    lines = list(_data_lines(table))
    if len(lines) != total:
        raise ValueError(f"{table}: found {len(lines)} rows, expected the {total} rows of the table beside it")
    votes: list[list[int] | None] = []
    for number in numbers:
        cells = lines[number]
        if len(cells) <= usage_column or cells[usage_column].strip() != usage:
            found = cells[usage_column] if len(cells) > usage_column else ""
            raise ValueError(
                f"{table} row {number}: found usage '{found}', expected '{usage}' as in the table beside it "
                "(rows must be in the same order)"
            )
        try:
            votes.append([int(cells[column]) for column in columns])
        except (ValueError, IndexError):
            votes.append(None)
    return votes


# Folders ------------------------------------------------------------------------------------------------------------


def _folder_rows(root: Path, folders: dict[str, Path], usage: str, bad: BadSamples) -> FER2013Rows:
    names = (*FOLDERS_OF_USAGE.get(usage, ()), usage.lower())
    folder = split_folders(root, {usage: names}).get(usage)
    if folder is None:
        raise ValueError(
            f"{root}: found no folder for usage '{usage}' (found {', '.join(folders)}), expected {names[0]}; "
            "name a folder in data.reader.init_args.usages"
        )
    paths: list[Path] = []
    raw: list[object] = []
    code: list[int] = []
    files_found = find_class_files(folder)
    for group, files in files_found.images.items():
        try:
            number = OFFICIAL_CODES.index(canonical_expression(group.name))
        except ValueError:
            number = len(OFFICIAL_CODES)
        paths += files
        raw += [group.name] * len(files)
        code += [number] * len(files)
    if not paths:
        raise ValueError(f"{folder}: found no image, expected {folder.name}/<expression>/*.jpg or *.png")
    return FER2013Rows(
        number=[-1] * len(paths),
        where=[str(path) for path in paths],
        raw_code=raw,
        code=np.array(code, dtype=np.int64),
        sample_id=[f"fer2013-{path.relative_to(root).as_posix()}" for path in paths],
        image=lambda index: _grey(read_image(paths[index], SIDE)),
        left_out=files_found.reasons(root),
    )
