"""Writing a folder so that it is there as a whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_new_folder(out: Path, option: str = "--out") -> None:
    """Refuses a place where something lies.

    Raises:
        ValueError: a file, or a folder that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{option} '{out}': found something there already, expected a new or an empty folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a hidden folder beside ``out`` that takes its place at the end, or is gone after an error."""
    partial = out.absolute().with_name(f".{out.absolute().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(out.absolute())
    finally:
        shutil.rmtree(partial, ignore_errors=True)
