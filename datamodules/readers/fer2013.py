"""FER2013 in its four public layouts, with original labels or FER+ votes."""

from __future__ import annotations

import csv
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.readers.ferplus import FERPLUS_SPACE, VOTE_COLUMNS, count_votes
from datamodules.readers.reader import BadSamples, OnBadSample, Reader, Split, check_on_bad_sample
from datamodules.rows.image_files import find_class_files, split_folders
from datamodules.rows.images import BadImageError, check_not_constant, decode_image, read_image
from datamodules.rows.provenance import content_hash
from datamodules.rows.sample_table import ArrayImages, ReadReport, SampleTable, one_hot
from synfer.faces.expressions import LABEL_SPACES, canonical_expression

logger = logging.getLogger(__name__)

SIDE = 48
OFFICIAL_CODES = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Expression of each code 0–6 of the official release."""

OFFICIAL_USAGES = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}

OFFICIAL_BLACK_ROWS = frozenset(
    (6458, 7629, 10423, 11286, 13148, 13402, 13988, 15894, 22198, 22927, 28601, 30002),
)
"""All-black rows that the official release itself holds: part of the benchmark, so they are reported, not refused."""

FOLDERS_OF_USAGE = {
    "Training": ("train", "training"),
    "PublicTest": ("val", "valid", "validation", "publictest"),
    "PrivateTest": ("test", "privatetest"),
}
FERPLUS_FILE = "fer2013new.csv"
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
        self._layout = _detect_layout(self._root, with_votes=labels != "original")
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
            report=FER2013Report(read=found, skipped=skipped, excluded=excluded, black_rows=tuple(black)),
        )

    def _original_labels(self, rows: _Rows, bad: BadSamples) -> tuple[np.ndarray, np.ndarray]:
        """Returns label (N,), −1 where bad, and its one-hot form (N, 7)."""
        of_code = np.array([self.label_space.index(name) for name in OFFICIAL_CODES] + [-1], dtype=np.int64)
        label = of_code[rows.code]
        for index in np.flatnonzero(label < 0):
            bad.add(f"{rows.where[index]}: found label code {rows.raw_code[index]!r}, expected 0 to 6")
        return label, one_hot(label, len(self.label_space))

    def _vote_labels(
        self, rows: _Rows, split: Split, bad: BadSamples, excluded: dict[str, int]
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

    def _check_agreement(self, rows: _Rows, label: np.ndarray, decided: np.ndarray) -> None:
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


def _spread(rows: np.ndarray, label: np.ndarray, limit: int | None) -> np.ndarray:
    """Returns at most ``limit`` of these rows, in order: evenly spaced when sorted by label."""
    if limit is None or len(rows) <= limit:
        return rows
    by_label = rows[np.argsort(label[rows], kind="stable")]
    return np.sort(by_label[(2 * np.arange(limit) + 1) * len(rows) // (2 * limit)])


@dataclass
class _Rows:
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
        return len(self.number)


_Layout = Callable[[str, BadSamples], _Rows]


def _detect_layout(root: Path, with_votes: bool) -> _Layout:
    """Returns the function that reads the rows of one usage from the layout found in ``root``."""
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


def _parquet_rows(files: list[Path], usage: str, with_votes: bool) -> _Rows:
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
    return _Rows(
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


def _csv_rows(table: Path, votes_table: Path | None, usage: str, bad: BadSamples) -> _Rows:
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
    return _Rows(
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


def _folder_rows(root: Path, folders: dict[str, Path], usage: str, bad: BadSamples) -> _Rows:
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
    return _Rows(
        number=[-1] * len(paths),
        where=[str(path) for path in paths],
        raw_code=raw,
        code=np.array(code, dtype=np.int64),
        sample_id=[f"fer2013-{path.relative_to(root).as_posix()}" for path in paths],
        image=lambda index: _grey(read_image(paths[index], SIDE)),
        left_out=files_found.reasons(root),
    )
