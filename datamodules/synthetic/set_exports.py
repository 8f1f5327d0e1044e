"""The pictures of a synthetic set in the forms that other loaders take: WebDataset's archives, folders by name."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.synthetic.synthetic_shards import most_probable
from datamodules.synthetic.whole_set import WholeSet, open_whole
from synfer.foundation.new_folder import check_new_folder, new_folder

Label = Literal["final", "intended"]
"""Which expression names a picture: the most probable one of the soft label, or the one that was asked."""

ARCHIVE_FACES = 4096
"""Samples of an archive."""


def export_webdataset(folder: Path, out: Path, label: Label = "final") -> Counter[str]:
    """Writes the kept faces as ``synthetic-000000.tar``, … of ``<id>.png``, ``<id>.cls`` and ``<id>.json``.

    ``.cls`` is the number of the expression in ``classes.txt``, as WebDataset's own tools expect; ``.json`` holds the
    other columns. Members carry no time and no owner: the same set gives the same bytes.

    Args:
        folder: a finished set.
        out: a new or an empty folder.
        label: which expression is the class.

    Returns:
        Expression → pictures.

    Raises:
        ValueError: a set that is unfinished or damaged; nothing has been written then.
    """

    def write(found: WholeSet, new: Path) -> Counter[str]:
        (new / "classes.txt").write_text("".join(f"{name}\n" for name in found.label_space))
        counts: Counter[str] = Counter()
        rows = _rows(found, label)
        for number in itertools.count():
            first = next(rows, None)
            if first is None:
                return counts
            with tarfile.open(new / f"synthetic-{number:06d}.tar", "w") as archive:
                for name, row in itertools.chain([first], itertools.islice(rows, ARCHIVE_FACES - 1)):
                    _add_sample(archive, found.label_space.index(name), {**row, "label": name})
                    counts[name] += 1
        return counts

    return _export(folder, out, write)


def export_folder(folder: Path, out: Path, label: Label = "final") -> Counter[str]:
    """Writes the kept faces as ``<expression>/<id>.png``, and ``metadata.csv`` with what was asked of each.

    Args:
        folder: a finished set.
        out: a new or an empty folder.
        label: which expression a picture lies under.

    Returns:
        Expression → pictures.

    Raises:
        ValueError: a set that is unfinished or damaged; nothing has been written then.
    """

    def write(found: WholeSet, new: Path) -> Counter[str]:
        counts: Counter[str] = Counter()
        with (new / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            columns = ["file_name", "label", "intended", "caption", "seed", "sample_id", "layout_source"]
            table = csv.DictWriter(file, columns, extrasaction="ignore")
            table.writeheader()
            for name, row in _rows(found, label):
                if not counts[name]:
                    (new / name).mkdir()
                path = f"{name}/{row['sample_id'].replace('/', '-')}.png"
                (new / path).write_bytes(row["image"]["bytes"])
                table.writerow({**row, "file_name": path, "label": name})
                counts[name] += 1
        return counts

    return _export(folder, out, write)


EXPORTS: dict[str, Callable[[Path, Path, Label], Counter[str]]] = {
    "webdataset": export_webdataset,
    "folder": export_folder,
}
"""Form → what writes it."""


def _export(folder: Path, out: Path, write: Callable[[WholeSet, Path], Counter[str]]) -> Counter[str]:
    check_new_folder(out)
    found = open_whole(folder)
    with new_folder(out) as new:
        counts = write(found, new)
        if not counts:
            raise ValueError(f"synthetic set '{folder}': found no face that the vote has kept, expected some")
    return counts


def _rows(found: WholeSet, label: Label) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the kept rows, each with its class; ``label`` is then called ``intended``."""
    for table in found.tables():
        table = table.filter(table["kept"])
        if not len(table):
            continue
        intended = np.array(found.label_space)[table["label"].to_numpy()]
        names = most_probable(table["soft_label"]) if label == "final" else intended
        for name, asked, row in zip(names.tolist(), intended.tolist(), table.to_pylist(), strict=True):
            row["intended"] = asked
            yield name, row


def _add_sample(archive: tarfile.TarFile, code: int, row: dict[str, Any]) -> None:
    key = row["sample_id"].replace("/", "-").replace(".", "-")  # a key ends at the first dot of a name
    entry = {name: value for name, value in row.items() if name != "image"}
    contents = {"png": row["image"]["bytes"], "cls": str(code).encode(), "json": json.dumps(entry).encode()}
    for ending, content in contents.items():
        member = tarfile.TarInfo(f"{key}.{ending}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
