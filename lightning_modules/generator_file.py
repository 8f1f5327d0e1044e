"""How a generator is stored: without what its ``base`` gives back, as a checkpoint or as a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_modules.stored_network import check_stored_network
from lightning_modules.synthesiser_file import with_setting_groups
from lightning_modules.synthesiser_module import SynthesiserModule
from synfer.foundation.validate import check_same_settings
from synfer.networks.latent_codec import GENERATOR_FILE
from synfer.networks.network_settings import NetworkSettings
from synfer.synthesis.diffusion.cache_settings import CacheSettings
from synfer.synthesis.diffusion.condition_dropout import ConditionDropout
from synfer.synthesis.diffusion.execution import ExecutionSettings
from synfer.synthesis.diffusion.representation_alignment import AlignmentSettings
from synfer.synthesis.diffusion.timestep_draw import TimestepDraw
from synfer.synthesis.request import SamplingSettings

_GROUPS = {
    "alignment": AlignmentSettings,
    "cache": CacheSettings,
    "network": NetworkSettings,
    "drop": ConditionDropout,
    "execution": ExecutionSettings,
    "sampling": SamplingSettings,
    "timesteps": TimestepDraw,
}


class GeneratorFile(SynthesiserModule):
    """A synthesiser whose frozen parts come from ``hparams["base"]`` and stay out of its files (C7)."""

    file_format = GENERATOR_FILE
    setting_groups = _GROUPS

    def _frozen_names(self) -> set[str]:
        """State that a ``base`` gives back: it stays out of checkpoints (C7)."""
        if self.hparams["base"] is None:
            return set()
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return set(self.state_dict()) - trained

    def _not_in_folders(self) -> set[str]:
        return self._frozen_names()

    def check_stored_settings(self, stored: Mapping[str, Any], named: str) -> None:
        """Refuses the weights of another network, codec or noise schedule.

        Args:
            stored: the settings that they were trained with.
            named: where they come from, for the error.

        Raises:
            ValueError: names the setting that differs.
        """
        check_stored_network(self.hparams, stored, named)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the moving average, and leaves out what a ``base`` gives back."""
        frozen = self._frozen_names()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the moving average, and puts in what the ``base`` gives back.

        Raises:
            ValueError: in ``fit``, a checkpoint of another optimiser.
        """
        if self._trainer is not None and self._trainer.state.fn == "fit":
            saved = checkpoint.get("hyper_parameters", {})
            check_same_settings({"optimizer": "adamw", **saved}, dict(self.hparams), ("optimizer",))
        if "state_dict" in checkpoint:  # a strategy that shards has loaded it already
            checkpoint["state_dict"] = self._completed(checkpoint["state_dict"])
        super().on_load_checkpoint(checkpoint)

    def _completed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        own = self.state_dict()
        return {**{name: own[name] for name in self._frozen_names()}, **weights}


def generator_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a generator's class from settings of plain types, as files and configs hold them.

    Args:
        settings: by their names of now; groups of settings as mappings, or made already.

    Raises:
        ValueError: a value out of range.
    """
    return with_setting_groups(settings, _GROUPS)
