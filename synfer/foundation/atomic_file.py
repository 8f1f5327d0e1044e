"""Writing a file so that it is there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a hidden path beside ``path`` to write to, which takes its place at the end of the ``with`` block.

    Missing folders are made. The content is on the disk before the name is: a power cut leaves the old file or the new
    one. An error inside the block leaves neither a new file nor the hidden one. The hidden name has another ending, so
    that readers of ``*.parquet`` pass over what a killed run has left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
