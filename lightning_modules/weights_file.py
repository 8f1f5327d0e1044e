"""Writing weights as safetensors so that others may read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from datamodules.whole_file import whole_file


def save_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a file of safetensors, whole or not at all, with the permissions of any new file (the umask's).

    Versions of safetensors from 0.8 make their files readable by their owner alone, which keeps colleagues on a cluster
    from weights that are meant for them.

    Args:
        tensors: by name; they are copied to the CPU.
        path: of the file.
    """
    with whole_file(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
        partial.chmod(mode)
