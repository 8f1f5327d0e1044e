"""Which split a file of a set belongs to, by the names of its folders and its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Split → how it is called in names of files and folders, in lower case."""


def split_of(path: str) -> str:
    """Returns the split of a file by its path inside the set; "train" where no name says another.

    A folder is compared whole, a file by its first word: ``data/validation-00000-of-00002.parquet``, ``val/0.tar``.
    """
    folders, name = PurePosixPath(path).parts[:-1], PurePosixPath(path).name
    words = [re.split(r"[-_.\d]", name, maxsplit=1)[0].lower(), *(folder.lower() for folder in reversed(folders))]
    for word in words:
        for split, names in SPLIT_NAMES.items():
            if word in names:
                return split
    return "train"


def files_by_split(paths: Sequence[str]) -> dict[str, list[str]]:
    """Returns split → its files, sorted, for paths inside the set; hidden files are left out."""
    found: dict[str, list[str]] = {}
    for path in sorted(paths):
        if not any(part.startswith((".", "_")) for part in PurePosixPath(path).parts):
            found.setdefault(split_of(path), []).append(path)
    return found
