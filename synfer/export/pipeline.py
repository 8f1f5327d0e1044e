"""A whole generator as a folder that ``DiffusionPipeline.from_pretrained`` of diffusers opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from synfer.export.au_adapter import AUAdapterExporter, write_au_adapter, write_pipeline_class
from synfer.export.card import write_card
from synfer.export.exporter import ExportSettings, NothingToExportError, TrainedGenerator
from synfer.export.generator_base import has_au_adapter
from synfer.export.model_folder import (
    plain_weights,
    write_network,
    write_schedule,
    write_text_encoder,
    write_tokenizer,
)
from synfer.export.shipped.expression_pipeline import ExpressionPipeline
from synfer.foundation.file_reading import reading
from synfer.foundation.json_file import read_json, write_json
from synfer.networks.diffusion import load_diffusion_model
from synfer.networks.latent_codec import AutoencoderKLCodec

_INDEX = "model_index.json"
_EXPECTED = "a pipeline that export.py wrote"


class PipelineExporter:
    """Exports all of a generator: LoRA added to the UNet's weights, the AU adapter as a part of its own.

    diffusers' ``save_pretrained`` would write the adapter among the UNet's weights, and ``from_pretrained`` leave it
    there. Here it is a part with a class of its own, and the pipeline class beside it puts it into the UNet.

    Args:
        settings: number format, and what the card says.
    """

    kind = "diffusion"

    def __init__(self, settings: ExportSettings = ExportSettings()) -> None:  # noqa: B008 (frozen)
        self.settings = settings

    def export(self, module: TrainedGenerator, folder: Path) -> None:
        """Writes the folders of all parts, ``model_index.json``, the pipeline's Python file and the card.

        Raises:
            NothingToExportError: a codec that diffusers does not know.
            ValueError: a weight is not finite in the number format.
        """
        synthesiser, dtype = module.synthesiser, self.settings.dtype
        model = synthesiser.model
        if not isinstance(model.codec, AutoencoderKLCodec):
            raise NothingToExportError(
                "pipeline: found model.network.codec 'space_to_depth', which diffusers does not know, expected "
                "model.base or the codec 'autoencoder_kl'"
            )
        write_network(folder / "unet", model.unet, plain_weights(model.unet), dtype)
        autoencoder = model.codec.autoencoder
        write_network(folder / "vae", autoencoder, autoencoder.state_dict(), dtype)
        write_text_encoder(folder / "text_encoder", model.text_encoder, dtype)
        tokenizer = write_tokenizer(folder / "tokenizer", model.tokenizer)
        write_schedule(folder / "scheduler", model.scheduler)
        index = _index(tokenizer)
        if has_au_adapter(model.unet):
            write_au_adapter(folder / "au_adapter", synthesiser, dtype)
            write_pipeline_class(folder)
            index |= {"au_adapter": ["au_adapter", "AUAdapter"], "null_caption": synthesiser.null_caption}
        write_json(folder / _INDEX, index)
        write_card(folder, module, "pipeline", self.settings)

    def load(self, folder: Path) -> StableDiffusionPipeline:
        """Returns the pipeline of an export, in float32: an ``ExpressionPipeline`` where it has an AU adapter."""
        with reading("pipeline", folder, _EXPECTED):
            index = read_json(folder / _INDEX, "index of a pipeline", _EXPECTED)
            model = load_diffusion_model(str(folder), {})
            parts = {
                "vae": model.codec.autoencoder,
                "text_encoder": model.text_encoder,
                "tokenizer": model.tokenizer,
                "unet": model.unet,
                "scheduler": model.scheduler,
                "safety_checker": None,
                "feature_extractor": None,
                "requires_safety_checker": False,
            }
            if "au_adapter" not in index:
                return StableDiffusionPipeline(**parts)
            adapter = AUAdapterExporter().load(folder / "au_adapter")
            return ExpressionPipeline(**parts, au_adapter=adapter, null_caption=index["null_caption"])


def _index(tokenizer: str) -> dict[str, Any]:
    import diffusers

    return {
        # diffusers' own class: with it the folder opens for those who want none of our code, action units apart.
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", tokenizer],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
