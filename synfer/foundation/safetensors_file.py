"""Weights as safetensors, with a checksum that the format itself lacks: a flipped bit is an error, not another face."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.checkpoint_file import check_finite
from synfer.foundation.file_reading import FileError, reading

_CHECKSUM = "crc32"  # an entry of the format's metadata, which other readers pass over


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Writes tensors, whole or not at all, readable for whoever may read other new files there (the umask's way).

    Args:
        path: the file.
        tensors: by name.
        metadata: further entries of the format's header.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        save_file(tensors, partial, metadata={**(metadata or {}), "format": "pt", _CHECKSUM: _checksum(tensors)})
        partial.chmod(mode)  # safetensors lets their owner alone read its files
    return path


def read_safetensors(
    path: Path, kind: str, expected: str = "weights in the format of safetensors"
) -> dict[str, Tensor]:
    """Returns the tensors by name, on the CPU.

    Args:
        path: the file.
        kind: whose weights, for errors: "AU estimator".
        expected: what should be there, for errors.

    Raises:
        FileNotFoundError: no file there.
        ValueError: it is damaged, no safetensors file, or holds NaN or an infinity.
    """
    with reading(kind, path, expected), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
        written = (file.metadata() or {}).get(_CHECKSUM)
    if written not in (None, _checksum(tensors)):
        raise FileError(f"{kind} '{path}': found damage (its checksum does not hold), expected {expected}")
    check_finite(tensors, kind, path)
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        content = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data
        value = zlib.crc32(content, zlib.crc32(name.encode(), value))
    return f"{value:08x}"
