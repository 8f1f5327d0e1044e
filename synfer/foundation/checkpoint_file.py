"""Checkpoints of tensors and plain types: found, checked for damage, read; an error of one line where that fails."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synfer.foundation.file_reading import FileError, plain_reason

LAST = "last.ckpt"

_SETTLED_S = 2.0  # a file as young as this may change once more without a new time of writing
_found_whole: dict[Path, tuple[int, int, int]] = {}
"""What this process has compared with its checksums: file → (inode, size, time of writing)."""


def find_checkpoint(path: str | Path, kind: str) -> Path:
    """Returns the checkpoint that a path means: the file itself, or the last one of a run folder.

    Args:
        path: a file, a run folder, or its folder ``checkpoints``; anything else comes back as it is.
        kind: whose checkpoint it should be, for errors: "classifier".

    Raises:
        FileNotFoundError: a run folder without ``last.ckpt``, as one of ``predict`` is.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if (folder / LAST).exists():
        return folder / LAST
    others = sorted(folder.glob("*.ckpt"))
    if others or folder.name == "checkpoints":
        found = f"found {others[0].name}, but no {LAST}" if others else f"found no {LAST}"
        raise FileNotFoundError(f"{kind} checkpoint '{path}': {found} in '{folder}', expected the path of a checkpoint")
    if (path / "summary.json").is_file() and not any((path / name).exists() for name in ("config.json", ".metadata")):
        raise FileNotFoundError(
            f"{kind} checkpoint '{path}': found a run folder without checkpoints, expected that of a fit (or the "
            "path of a checkpoint)"
        )
    return path


def last_whole_checkpoint(folder: str | Path) -> Path | None:
    """Returns the newest checkpoint in a folder that is whole, None where there is none.

    Newest by the time of writing; of files of the same time ``last.ckpt`` comes first.
    """
    written = [(path.stat().st_mtime_ns, path.name == LAST, path) for path in Path(folder).glob("*.ckpt")]
    return next((path for *_, path in sorted(written, reverse=True) if path.is_dir() or damage(path) is None), None)


def damage(path: Path) -> str | None:
    """Returns what is wrong with a checkpoint file as a file, None where it is whole.

    Every byte is compared with the checksums of the zip archive that ``torch.save`` writes (2 GB/s); torch's own
    reader passes over them, so that a flipped bit would be a silently wrong weight.
    """
    try:
        if not zipfile.is_zipfile(path):
            return "found the file cut off, or no checkpoint at all"
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("/data.pkl") or name == "data.pkl" for name in archive.namelist()):
                return "found an archive without data.pkl, which every checkpoint has"
            bad = archive.testzip()
            return None if bad is None else f"found damage: the checksum of its part '{bad}' does not hold"
    except Exception as error:  # zipfile raises a dozen types, NotImplementedError among them
        return plain_reason(error)


def read_checkpoint(
    path: str | Path, kind: str, map_location: str | torch.device = "cpu", mmap: bool | None = None
) -> Any:
    """Returns what is in a checkpoint, read with ``weights_only=True`` after its checksums were compared.

    Args:
        path: the file, or a run folder, which means its last one.
        kind: whose checkpoint it should be, for errors: "classifier".
        map_location: device.
        mmap: leave tensors on disk until they are used; needs a file of today's format.

    Raises:
        FileNotFoundError: no file there.
        ValueError: it is damaged or no checkpoint; the newest whole one beside it is named.
    """
    path = find_checkpoint(path, kind)
    if not path.is_file():
        raise FileNotFoundError(f"{kind} checkpoint: no file at {path}, expected one written by training")
    reason = _damage_or_known_whole(path)
    if reason is None or not _is_ours(path):  # files of before torch 1.6 are no archives
        try:
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        except Exception as error:  # zip, pickle and torch each raise their own types here
            reason = reason or plain_reason(error, length=160)
    raise FileError(f"{kind} checkpoint {path} cannot be read as a checkpoint: {reason}{_beside(path)}")


def check_finite(tensors: Mapping[str, Any], kind: str, path: str | Path) -> None:
    """Refuses weights that are no numbers: whatever they would make is noise.

    Args:
        tensors: by name; what is no tensor of floats is passed over.
        kind: whose weights, for the error: "classifier checkpoint".
        path: the file that they come from.

    Raises:
        ValueError: one holds NaN or an infinity.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.is_meta:
            continue
        # A finite sum says that all are finite, at a hundredth of the time; another one may be an overflow.
        if not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise FileError(
                f"{kind} '{path}': found {bad} of {tensor.numel()} numbers in '{name}' that are NaN or infinite, "
                "expected finite weights (its training diverged, or the file is damaged)"
            )


def _damage_or_known_whole(path: Path) -> str | None:
    """Returns :func:`damage`, without reading once more a file that was whole and has not been written since.

    A run that goes on from a checkpoint looks into it three times, and a large one takes seconds each time.
    """
    now = path.stat()
    state = (now.st_ino, now.st_size, now.st_mtime_ns)
    if _found_whole.get(path) == state:
        return None
    reason = damage(path)
    if reason is None and time.time() - now.st_mtime > _SETTLED_S:
        _found_whole[path] = state
    return reason


def _is_ours(path: Path) -> bool:
    """Whether the file begins as a zip archive does."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _beside(path: Path) -> str:
    whole = last_whole_checkpoint(path.parent) if path.suffix == ".ckpt" else None
    return "" if whole is None else f" (the newest whole one beside it: {whole})"
