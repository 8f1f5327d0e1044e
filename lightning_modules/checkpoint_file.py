"""Reading a checkpoint of tensors and plain types, with an error of one line where that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def read_checkpoint(path: Path, kind: str, map_location: str | torch.device = "cpu", mmap: bool | None = None) -> Any:
    """Returns what is in a checkpoint, read with ``weights_only=True``.

    Args:
        path: the file.
        kind: whose checkpoint it should be, for errors: "classifier".
        map_location: device.
        mmap: leave tensors on disk until they are used; needs a file of today's format.

    Raises:
        FileNotFoundError: no file there.
        ValueError: it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{kind} checkpoint: no file at {path}, expected one written by training")
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except Exception as error:  # zip, pickle and torch each raise their own types here
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise ValueError(f"{kind} checkpoint {path} cannot be read as a checkpoint: {reason}") from error
