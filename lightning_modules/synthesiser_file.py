"""How a module that makes faces is stored: as a checkpoint, or as a folder of what synthesis needs and nothing else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from torch.random import fork_rng

from lightning_modules.averaged_module import AveragedModule
from synfer.foundation.checkpoint_file import find_checkpoint
from synfer.foundation.file_reading import reading
from synfer.foundation.module_file import WEIGHTS_ALONE, StoredModule, in_float16, write_folder

_EXPORTED_FROM = "_exported_from"  # beside the settings of a folder: the fingerprint before rounding to float16

_BEGINNING = ("lora_weights", "initial_weights", "teacher", "substeps")
"""Settings that say what a training began with, or learned from: a finished module is loaded without them."""

Module = TypeVar("Module", bound="SynthesiserFile")


class SynthesiserFile(AveragedModule):
    """An averaged module that makes faces and can be loaded for that alone.

    A subclass says which of its arguments are groups of settings (``setting_groups``), and, where a folder or a
    checkpoint lacks a part of it, which (``_not_in_folders``) and how it comes back (``_completed``).

    Attributes:
        exported_from: fingerprint of the weights that a folder of :meth:`save_trained` was rounded from; None = it was
            not loaded from such a folder.
    """

    setting_groups: ClassVar[Mapping[str, Any]]
    exported_from: str | None = None

    @abstractmethod
    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over the trained weights (C6: an image is a function of them)."""

    @abstractmethod
    def _not_in_folders(self) -> set[str]:
        """Names of state that a folder of trained weights does without."""

    @abstractmethod
    def _completed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weights of a file together with those that it does without."""

    @classmethod
    def _expected(cls) -> str:
        return f"a checkpoint of {cls.file_format.class_name} or a folder of its save_trained"

    @classmethod
    @fork_rng(devices=[])  # building networks draws random numbers, and must not disturb a training beside
    def load_trained(cls: type[Module], path: str | Path, map_location: str = "cpu") -> Module:
        """Loads a module for synthesis: averaged weights in place, eval mode, no gradients.

        Args:
            path: Lightning checkpoint, a run folder (its last one), or a folder written by :meth:`save_trained`.
            map_location: device.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: another kind of module, damaged, or weights that are not finite.
        """
        files = cls.file_format
        name = files.name or files.kind
        path = find_checkpoint(path, name)
        if not path.exists():
            raise FileNotFoundError(f"{name} '{path}': no such file or folder, expected {cls._expected()}")
        with reading(name, path, cls._expected()):
            stored = files.read_folder(path) if path.is_dir() else files.read_checkpoint(path, map_location)
            module = cls._restored(stored)
        return module.eval().requires_grad_(False).to(map_location)

    @classmethod
    def _restored(cls: type[Module], stored: StoredModule) -> Module:
        """Returns a module with these settings and weights."""
        parameters = dict(stored.settings)
        exported_from = parameters.get(_EXPORTED_FROM)
        parameters = {k: v for k, v in parameters.items() if not k.startswith("_") and k not in _BEGINNING}
        make: Any = cls  # arguments by their names in the file
        module = make(**with_setting_groups(parameters, cls.setting_groups))
        module.load_state_dict(module._completed(stored.weights))
        module.ema = None  # the weights are its average
        module.exported_from = exported_from
        return module

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the moving average; to the weights of a folder comes what folders do without."""
        if checkpoint.get(WEIGHTS_ALONE):
            checkpoint["state_dict"] = self._completed(checkpoint["state_dict"])
            self.exported_from = checkpoint["hyper_parameters"].get(_EXPORTED_FROM)
        super().on_load_checkpoint(checkpoint)

    def save_trained(self, folder: str | Path) -> None:
        """Writes what synthesis needs, and nothing else: ``model.safetensors`` (float16) and ``config.json``.

        Averaged weights where there are any. The folder is read by :meth:`load_trained`.

        Args:
            folder: made if missing.

        Raises:
            ValueError: a weight is not finite in float16, and nothing is written.
        """
        left_out = self._not_in_folders()
        with nullcontext() if self.ema is None else self.ema.swapped():
            config = {**self.hparams, _EXPORTED_FROM: self.weights_fingerprint()}
            kept = {name: tensor for name, tensor in self.state_dict().items() if name not in left_out}
            tensors = in_float16(kept, self.file_format.name or self.file_format.kind, folder)
        write_folder(Path(folder), self.file_format.kind, config, tensors)


def with_setting_groups(settings: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a module's class from settings of plain types, as files and configs hold them.

    Args:
        settings: by their names of now; groups of settings as mappings, or made already.
        groups: name of a group → its class.

    Raises:
        ValueError: a value out of range.
    """
    made: dict[str, Any] = dict(settings)
    for name, group in groups.items():
        if isinstance(made.get(name), Mapping):
            made[name] = group(**made[name])
    return made
