"""Writing a file so that it is there as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a hidden path beside ``path`` to write to, which takes its place at the end of the ``with`` block.

    Missing folders are made. The hidden name has another ending, so that readers of ``*.parquet`` pass over what a
    killed run has left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    partial.replace(path)
