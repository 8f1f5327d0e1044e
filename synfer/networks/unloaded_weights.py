"""Weights of frozen modules that leave memory for a while, and come back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.safetensors_file import read_safetensors, write_safetensors


class UnloadedWeights:
    """Takes the parameters of frozen modules out of memory, on whatever device they are, and puts them back.

    They lie in a file meanwhile, written once for the same weights. The parameters themselves stay where they are, as
    tensors without numbers, so that whoever refers to them need not know.

    Args:
        folder: for the file; made if missing.
        modules: by name; their buffers, which are small, stay in memory.
    """

    def __init__(self, folder: Path, modules: Mapping[str, nn.Module]) -> None:
        self._parameters = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
        }
        formats = sorted({str(parameter.dtype) for parameter in self._parameters.values()})
        self._path = folder / f"frozen-{fingerprint(self._parameters.items(), ' '.join(formats))}.safetensors"
        self._device: torch.device | None = None

    @property
    def is_out(self) -> bool:
        """Whether the weights are out of memory."""
        return self._device is not None

    def store(self) -> None:
        """Writes the file where there is none; one process at a time."""
        if self._parameters and not self.is_out and not self._path.is_file():
            write_safetensors(self._path, self._parameters)

    def unload(self) -> None:
        """Takes the weights out of memory; does nothing where they are out."""
        if self.is_out or not self._parameters:
            return
        self.store()
        self._device = next(iter(self._parameters.values())).device
        for parameter in self._parameters.values():
            parameter.data = parameter.data.new_empty(0)

    def restore(self) -> None:
        """Puts the weights back; does nothing where they are there.

        Raises:
            FileNotFoundError, ValueError: the file is gone or damaged.
        """
        if self._device is None:
            return
        if not self._path.is_file():
            raise FileNotFoundError(f"frozen weights: no file at {self._path}, expected what this run has put there")
        stored = read_safetensors(self._path, "frozen weights", "what this run has put there")
        for name, parameter in self._parameters.items():
            parameter.data = stored[name].to(self._device)
        self._device = None
