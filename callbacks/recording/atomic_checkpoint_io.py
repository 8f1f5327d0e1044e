"""Checkpoints that are written whole, in their own folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.module_file import is_folder_of_weights, read_folder_as_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to the disk and renames it.

    Lightning writes to the system's temporary folder first: from another disk the file is then copied into place, and a
    kill or a full disk in the middle leaves half of one where a whole one was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes a local file; other places (``s3://…``) are left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        with atomic_write(path) as partial:
            torch.save(checkpoint, partial)
            _make_newest(partial, path)

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """Reads a checkpoint, or a folder of trained weights as one without the state of a training."""
        if is_folder_of_weights(str(path)):
            return {**read_folder_as_checkpoint(Path(path)), "pytorch-lightning_version": lightning.__version__}
        return super().load_checkpoint(path, *args, **options)


def _make_newest(written: Path, path: Path) -> None:
    """Has a checkpoint be later than all in its folder: the newest goes on, and somebody may set the clock back."""
    others = [other.stat().st_mtime_ns for other in path.parent.glob(f"*{path.suffix}") if other != path]
    found = written.stat()
    newest = max(others, default=0)
    if found.st_mtime_ns <= newest:
        os.utime(written, ns=(found.st_atime_ns, newest + 1_000_000))  # file systems know milliseconds at least
