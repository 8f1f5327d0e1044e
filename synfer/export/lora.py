"""LoRA as ``pipe.load_lora_weights`` of diffusers takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from synfer.export.card import write_card
from synfer.export.exporter import ExportSettings, NothingToExportError, TrainedGenerator
from synfer.export.generator_base import base_of, has_lora
from synfer.export.lora_file import LoRAWeights, read_lora
from synfer.export.model_folder import in_dtype, write_schedule
from synfer.foundation.safetensors_file import write_safetensors

WEIGHTS = "pytorch_lora_weights.safetensors"
_METADATA = "lora_adapter_metadata"  # the entry of the file's header that diffusers reads
_ADAPTER = "default"  # peft's name of an adapter that was given none
_KEYS = ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora")
"""What decides the effect of the weights; an older peft does not know all of the rest."""


class LoRAExporter:
    """Exports the LoRA of a generator: weights by the names that diffusers reads, and what gives them their strength.

    Without that (rank and alpha) diffusers takes alpha for the rank, and the effect is another one.

    Args:
        settings: number format, and what the card says.
    """

    kind = "diffusion"

    def __init__(self, settings: ExportSettings = ExportSettings()) -> None:  # noqa: B008 (frozen)
        self.settings = settings

    def export(self, module: TrainedGenerator, folder: Path) -> None:
        """Writes ``pytorch_lora_weights.safetensors``, the noise schedule and the card.

        Raises:
            NothingToExportError: a generator without a base or without LoRA.
            ValueError: a weight is not finite in the number format.
        """
        base_of(module, "lora")
        model = module.synthesiser.model
        if not has_lora(model.unet):
            raise NothingToExportError(
                f"lora: found model.trained '{module.hparams['trained']}', which has none, expected 'lora'"
            )
        largest = module.hparams["network"].get("largest_scale")
        if largest is not None:
            raise NothingToExportError(
                f"lora: found model.network.largest_scale {largest}, a distilled network, whose layer for the scale no "
                "LoRA file holds, expected the kind 'pipeline'"
            )
        weights = in_dtype(_weights(model.unet), self.settings.dtype, "lora")
        config = model.unet.peft_config[_ADAPTER]
        write_safetensors(folder / WEIGHTS, weights, {_METADATA: json.dumps(_metadata(config), sort_keys=True)})
        write_schedule(folder / "scheduler", model.scheduler)
        write_card(folder, module, "lora", self.settings)

    def load(self, folder: Path) -> LoRAWeights:
        """Returns the weights of an export, or of any file that diffusers can load into a UNet."""
        return read_lora(folder)


def _weights(unet: Any) -> dict[str, Tensor]:
    """Returns the two matrices of each layer by peft's names.

    diffusers' own names are for attention projections alone, and of a file that holds both it reads one kind.
    """
    own = {name: tensor for name, tensor in unet.state_dict().items() if f".{_ADAPTER}." in name}
    return {f"unet.{name.replace(f'.{_ADAPTER}.', '.')}": tensor for name, tensor in own.items()}


def _metadata(config: Any) -> dict[str, Any]:
    values = {key: getattr(config, key) for key in _KEYS}
    return {f"unet.{k}": sorted(v) if isinstance(v, (set, list)) else v for k, v in values.items()}
