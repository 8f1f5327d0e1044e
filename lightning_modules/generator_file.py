"""How a generator is stored: without what its ``base`` gives back, as a checkpoint or as a folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from torch.random import fork_rng

from lightning_modules.averaged_module import AveragedModule
from synfer.foundation.checkpoint_file import find_checkpoint
from synfer.foundation.file_reading import reading
from synfer.foundation.module_file import StoredModule, in_float16, write_folder
from synfer.networks.latent_codec import GENERATOR_FILE
from synfer.networks.network_settings import NetworkSettings
from synfer.synthesis.diffusion.condition_dropout import ConditionDropout
from synfer.synthesis.diffusion.execution import ExecutionSettings
from synfer.synthesis.request import SamplingSettings

_EXPORTED_FROM = "_exported_from"  # beside the settings of a folder: the fingerprint before rounding to float16
_EXPECTED = "a checkpoint of ExpressionGenerator or a folder of its save_trained"

_GROUPS = {
    "network": NetworkSettings,
    "drop": ConditionDropout,
    "execution": ExecutionSettings,
    "sampling": SamplingSettings,
}

Generator = TypeVar("Generator", bound="GeneratorFile")


class GeneratorFile(AveragedModule):
    """An averaged module whose frozen parts come from ``hparams["base"]`` and stay out of its files (C7).

    Attributes:
        exported_from: fingerprint of the weights that a folder of :meth:`save_trained` was rounded from; None = it was
            not loaded from such a folder.
    """

    file_format = GENERATOR_FILE
    exported_from: str | None = None

    @abstractmethod
    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over the trained weights (C6: an image is a function of them)."""

    def _frozen_names(self) -> set[str]:
        """State that a ``base`` gives back: it stays out of checkpoints (C7)."""
        if self.hparams["base"] is None:
            return set()
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return set(self.state_dict()) - trained

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the moving average, and leaves out what a ``base`` gives back."""
        frozen = self._frozen_names()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the moving average, and puts in what the ``base`` gives back."""
        checkpoint["state_dict"] = self._with_frozen(checkpoint["state_dict"])
        super().on_load_checkpoint(checkpoint)

    def _with_frozen(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        own = self.state_dict()
        return {**{name: own[name] for name in self._frozen_names()}, **weights}

    @classmethod
    @fork_rng(devices=[])  # building networks draws random numbers, and must not disturb a training beside
    def load_trained(cls: type[Generator], path: str | Path, map_location: str = "cpu") -> Generator:
        """Loads a generator for synthesis: averaged weights in place, eval mode, no gradients.

        Args:
            path: Lightning checkpoint, a run folder (its last one), or a folder written by :meth:`save_trained`.
            map_location: device.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: not a generator, damaged, or weights that are not finite.
        """
        path = find_checkpoint(path, "generator")
        if not path.exists():
            raise FileNotFoundError(f"generator '{path}': no such file or folder, expected {_EXPECTED}")
        with reading("generator", path, _EXPECTED):
            files = cls.file_format
            stored = files.read_folder(path) if path.is_dir() else files.read_checkpoint(path, map_location)
            generator = cls._restored(stored)
        return generator.eval().requires_grad_(False).to(map_location)

    @classmethod
    def _restored(cls: type[Generator], stored: StoredModule) -> Generator:
        """Returns a generator with these settings and weights."""
        parameters = dict(stored.settings)
        exported_from = parameters.get(_EXPORTED_FROM)
        parameters = {key: value for key, value in parameters.items() if not key.startswith("_")}
        make: Any = cls  # arguments by their names in the file
        generator = make(**generator_arguments(parameters))
        generator.load_state_dict(generator._with_frozen(stored.weights))
        generator.ema = None  # the weights are its average
        generator.exported_from = exported_from
        return generator

    def save_trained(self, folder: str | Path) -> None:
        """Writes what was trained, and nothing else: ``model.safetensors`` (float16) and ``config.json``.

        Averaged weights where there are any. The folder is read by :meth:`load_trained`.

        Args:
            folder: made if missing.

        Raises:
            ValueError: a weight is not finite in float16, and nothing is written.
        """
        frozen = self._frozen_names()
        with nullcontext() if self.ema is None else self.ema.swapped():
            config = {**self.hparams, _EXPORTED_FROM: self.weights_fingerprint()}
            kept = {name: tensor for name, tensor in self.state_dict().items() if name not in frozen}
            tensors = in_float16(kept, "generator", folder)
        write_folder(Path(folder), self.file_format.kind, config, tensors)


def generator_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a generator's class from settings of plain types, as files and configs hold them.

    Args:
        settings: by their names of now; groups of settings as mappings, or made already.

    Raises:
        ValueError: a value out of range.
    """
    made: dict[str, Any] = dict(settings)
    for name, group in _GROUPS.items():
        if isinstance(made.get(name), Mapping):
            made[name] = group(**made[name])
    return made
