"""The AU adapter in the layout of an IP-Adapter, which ``pipe.load_ip_adapter`` of diffusers takes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from synfer.export.card import write_card
from synfer.export.exporter import ExportSettings, NothingToExportError, NumberFormat, TrainedGenerator
from synfer.export.generator_base import base_of, has_au_adapter
from synfer.export.model_folder import DIFFUSERS_WEIGHTS, write_network, write_schedule
from synfer.export.shipped import au_adapter as shipped_adapter
from synfer.export.shipped import expression_pipeline as shipped_pipeline
from synfer.export.shipped.au_adapter import AUAdapter
from synfer.faces.action_units import REGIONS
from synfer.foundation.file_reading import reading
from synfer.foundation.json_file import read_json
from synfer.foundation.safetensors_file import read_safetensors
from synfer.networks.au_adapter import region_masks

_EXPECTED = "an AU adapter that export.py wrote"


class AUAdapterExporter:
    """Exports the AU adapter of a generator, with the names, regions and scale that its input has.

    Args:
        settings: number format, and what the card says.
    """

    kind = "diffusion"

    def __init__(self, settings: ExportSettings = ExportSettings()) -> None:  # noqa: B008 (frozen)
        self.settings = settings

    def export(self, module: TrainedGenerator, folder: Path) -> None:
        """Writes weights and ``config.json``, the Python files that use them, the noise schedule and the card.

        Raises:
            NothingToExportError: a generator without a base or without an adapter.
            ValueError: a weight is not finite in the number format.
        """
        base_of(module, "au_adapter")
        if not has_au_adapter(module.synthesiser.model.unet):
            raise NothingToExportError(
                f"au_adapter: found model.trained '{module.hparams['trained']}', which has none, expected 'adapter' or "
                "'lora'"
            )
        write_au_adapter(folder, module.synthesiser, self.settings.dtype)
        write_pipeline_class(folder)
        write_schedule(folder / "scheduler", module.synthesiser.model.scheduler)
        write_card(folder, module, "au_adapter", self.settings)

    def load(self, folder: Path) -> AUAdapter:
        """Returns the adapter of an export."""
        with reading("AU adapter", folder, _EXPECTED):
            config = read_json(folder / "config.json", "config of an AU adapter", _EXPECTED)
            adapter = AUAdapter.from_config({k: v for k, v in config.items() if not k.startswith("_")})
            adapter.load_state_dict(read_safetensors(folder / DIFFUSERS_WEIGHTS, "AU adapter", _EXPECTED))
        return adapter.eval()


def write_au_adapter(folder: Path, synthesiser: Any, dtype: NumberFormat) -> None:
    """Writes the AU adapter of a synthesiser, and the Python file that reads it, into a folder of its own."""
    adapter = _au_adapter_of(synthesiser)
    write_network(folder, adapter, adapter.state_dict(), dtype)
    shutil.copyfile(shipped_adapter.__file__, folder / "au_adapter.py")


def write_pipeline_class(folder: Path) -> None:
    """Writes the Python file of the pipeline that gives each image its own action units."""
    shutil.copyfile(shipped_pipeline.__file__, folder / "expression_pipeline.py")


def _au_adapter_of(synthesiser: Any) -> AUAdapter:
    unet, names = synthesiser.model.unet, list(synthesiser.au_names)
    processors = [p for p in unet.attn_processors.values() if hasattr(p, "to_k_ip")]
    masks = region_masks(names).int().tolist()
    adapter = AUAdapter(
        names,
        list(REGIONS),  # not a mapping from names: diffusers sorts those by name when it writes them
        masks,
        unet.config.cross_attention_dim,
        [processor.to_k_ip[0].out_features for processor in processors],
        synthesiser.sampling.au_scale,
    )
    adapter.take_over(unet)
    return adapter
