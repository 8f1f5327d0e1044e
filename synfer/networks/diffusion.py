"""The parts of a text- and AU-conditioned diffusion model: made from a config, or loaded from a diffusers folder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase

from synfer.faces.captions import VOCABULARY
from synfer.foundation.file_reading import reading
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.validate import check_config_keys, check_setting
from synfer.networks.au_adapter import au_adapter_parameters
from synfer.networks.latent_codec import AutoencoderKLCodec, LatentCodec, build_codec
from synfer.networks.prediction_type import PredictionType
from synfer.networks.quiet_loading import quiet_loading
from synfer.networks.stable_diffusion.base_folder import find_base
from synfer.networks.stable_diffusion.base_shape import check_parts, check_shape, read_part_config
from synfer.networks.stable_diffusion.noise_schedule import noise_schedule
from synfer.networks.stable_diffusion.number_format import FrozenFormat, in_stored_format
from synfer.networks.stable_diffusion.part import load_part
from synfer.networks.stable_diffusion.tokenizer import load_tokenizer
from synfer.networks.word_tokenizer import build_word_tokenizer

TrainedPart = Literal["all", "adapter", "lora", "unet_only", "lora_only"]
"""What learns on a loaded base: the UNet and the AU adapter ("all"), the adapter, LoRA and the adapter ("lora"), or the
UNet or LoRA without an adapter."""

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The projections of all attention layers."""

SMALL_UNET: dict[str, Any] = {
    "block_out_channels": (96, 192, 192),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 4,  # historical name in diffusers: this is the NUMBER of heads
    "norm_num_groups": 16,
    "cross_attention_dim": 128,
}
"""Attention only at 6×6 and 3×3 positions: on a CPU, attention over more tokens costs most and brings least."""

SMALL_TEXT_ENCODER: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
}

SMALL_SCHEDULER: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    # Without zero terminal SNR a pixel-like latent leaks its mean brightness at the last step (Lin et al., WACV 2024).
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "clip_sample": False,
}


class DiffusionModel(nn.Module):
    """UNet, text encoder, tokenizer, codec and noise schedule, held together.

    Args:
        unet: ``UNet2DConditionModel``.
        text_encoder: ``CLIPTextModel``.
        tokenizer: called with captions, as ``CLIPTokenizer`` is.
        codec: images ↔ latents.
        scheduler_config: config of a diffusers scheduler.

    Raises:
        ValueError: a noise schedule that this project cannot sample from.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        codec: LatentCodec,
        scheduler_config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.codec = codec
        self.scheduler = DDIMScheduler.from_config(scheduler_config)
        prediction = self.scheduler.config.prediction_type
        if prediction not in get_args(PredictionType):
            raise ValueError(
                f"model.network.scheduler.prediction_type: found '{prediction}', "
                f"expected one of {get_args(PredictionType)}"
            )
        if prediction == "epsilon" and float(self.scheduler.alphas_cumprod[-1]) == 0:
            raise ValueError(
                "model.network.scheduler: found prediction_type 'epsilon' with rescale_betas_zero_snr, expected "
                "'v_prediction' (pure noise tells nothing about the face)"
            )

    def encode_text(self, captions: list[str]) -> Tensor:
        """Returns text tokens, float32 (len(captions), L, D)."""
        ids = self.tokenizer(
            captions,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        with in_stored_format(self.text_encoder):
            return self.text_encoder(ids.to(self.text_encoder.device)).last_hidden_state.float()

    def build_fingerprint(self) -> str:
        """Returns 16 hex digits over what decides the outputs beside the weights: codec, noise schedule, networks."""
        builds = [dict(self.unet.config), self.text_encoder.config.to_dict(), dict(self.scheduler.config)]
        # Versions, paths and dtypes change with every saving and loading, and nothing that is computed with them.
        left_out = ("_", "transformers_version", "dtype", "torch_dtype")
        plain = [{key: v for key, v in build.items() if not key.startswith(left_out)} for build in builds]
        return fingerprint((), json.dumps([self.codec.fingerprint(), *plain], sort_keys=True, default=str))

    def choose_trained(
        self,
        part: TrainedPart,
        lora_rank: int = 4,
        lora_alpha: float | None = None,
        lora_targets: Sequence[str] = LORA_TARGETS,
    ) -> None:
        """Freezes a loaded model but for the part that is to learn, which is float32 from then on.

        Args:
            part: which; the AU adapter is attached already where it takes part.
            lora_rank: r of LoRA.
            lora_alpha: its update is scaled by alpha ÷ r; None = r.
            lora_targets: names, or ends of dotted names, of the layers that LoRA (Hu et al., arXiv 2106.09685) changes.

        Raises:
            ValueError: the UNet has no layer of such a name.
        """
        self.codec.requires_grad_(False)
        self.text_encoder.requires_grad_(False)
        self.unet.train()  # it comes in eval mode, and Lightning leaves modes as they are
        learns_whole = part in ("all", "unet_only")
        self.unet.requires_grad_(learns_whole)
        if part in ("lora", "lora_only"):
            from peft import LoraConfig

            names = [name for name, _ in self.unet.named_modules()]
            own: list[str] = []
            of_adapter = False
            for target in lora_targets:
                layers = [name for name in names if name == target or name.endswith(f".{target}")]
                plain = [name for name in layers if not _of_au_adapter(name)]
                if not plain:
                    raise ValueError(
                        f"model.lora_targets: found '{target}', expected ends of names of the UNet's layers"
                    )
                own += plain
                of_adapter |= plain != layers
            # The AU adapter's own layers learn as they are: where a target means them too, others are named in full.
            targets = sorted(set(own)) if of_adapter else list(lora_targets)
            alpha = lora_rank if lora_alpha is None else lora_alpha
            self.unet.add_adapter(LoraConfig(r=lora_rank, lora_alpha=alpha, target_modules=targets))
        if part in ("adapter", "lora"):
            for parameter in au_adapter_parameters(self.unet):
                parameter.requires_grad_(True)
        for parameter in self.unet.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # on a base in half precision too


def _of_au_adapter(layer: str) -> bool:
    return layer.startswith("encoder_hid_proj.") or ".processor." in layer


def small_diffusion_model(
    unet: dict[str, Any],
    text_encoder: dict[str, Any],
    scheduler: dict[str, Any],
    codec: str,
    codec_config: dict[str, Any],
    image_size: int,
) -> DiffusionModel:
    """Builds the embedded small model: the classes of Stable Diffusion, made from configs, nothing downloaded.

    Args:
        unet: keys that differ from :data:`SMALL_UNET`.
        text_encoder: keys that differ from :data:`SMALL_TEXT_ENCODER`.
        scheduler: keys that differ from :data:`SMALL_SCHEDULER`.
        codec: "space_to_depth" or "autoencoder_kl".
        codec_config: its config.
        image_size: side of the images in pixels.

    Raises:
        ValueError: an unknown key, an image size that does not fit the codec, or text and UNet widths that differ.
    """
    check_config_keys("model.network.text_encoder", text_encoder, CLIPTextConfig().to_dict())
    check_config_keys("model.network.scheduler", scheduler, inspect.signature(DDIMScheduler.__init__).parameters)
    latent_codec = build_codec(codec, codec_config)
    if image_size % latent_codec.downscale:
        raise ValueError(f"model.image_size: found {image_size}, expected a multiple of {latent_codec.downscale}")
    text = {**SMALL_TEXT_ENCODER, **text_encoder}
    net = {**SMALL_UNET, **unet}
    if net["cross_attention_dim"] != text["hidden_size"]:
        raise ValueError(
            f"model.network.unet.cross_attention_dim {net['cross_attention_dim']} differs from "
            f"model.network.text_encoder.hidden_size {text['hidden_size']}"
        )
    tokenizer = build_word_tokenizer(VOCABULARY, text["max_position_embeddings"])
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **text,
        )
    )
    network = UNet2DConditionModel(
        sample_size=image_size // latent_codec.downscale,
        in_channels=latent_codec.latent_channels,
        out_channels=latent_codec.latent_channels,
        **net,
    )
    return DiffusionModel(network, encoder, tokenizer, latent_codec, {**SMALL_SCHEDULER, **scheduler})


def load_diffusion_model(
    base: str, scheduler: dict[str, Any], frozen_dtype: FrozenFormat = "float32", unet_learns: bool = True
) -> DiffusionModel:
    """Loads a Stable-Diffusion-shaped model in diffusers' folder layout, from a local path or by Hub name.

    Safetensors only, in any number format; a variant (``….fp16.safetensors``) where there are no others. Of the stored
    scheduler, whatever its class, the noise schedule counts. ``HF_HUB_OFFLINE=1`` is honoured.

    Args:
        base: folder or Hub id with ``unet/``, ``vae/``, ``text_encoder/``, ``tokenizer/``, ``scheduler/``.
        scheduler: keys that replace those of the stored noise schedule.
        frozen_dtype: number format in memory of VAE and text encoder, and of a UNet that does not learn.
        unet_learns: whether the whole UNet learns; it is then in float32.

    Raises:
        FileNotFoundError: the folder or one of its parts is missing.
        ValueError: an unknown key of the schedule, a model of another shape (SDXL, inpainting), a text encoder of
            another width, damaged files, or weights that are not finite.
    """
    check_setting(frozen_dtype in (known := get_args(FrozenFormat)), "frozen_dtype", frozen_dtype, f"one of {known}")
    check_config_keys("model.network.scheduler", scheduler, inspect.signature(DDIMScheduler.__init__).parameters)
    from diffusers import AutoencoderKL

    found = find_base(base)
    check_parts(found)
    with quiet_loading(), reading("model.base", base, "a diffusers folder or Hub id of Stable Diffusion 1.x or 2.x"):
        check_shape(found)
        schedule = noise_schedule(base, read_part_config(found, "scheduler", "scheduler_config.json"))
        text_encoder = load_part(found, "text_encoder", CLIPTextModel, frozen_dtype)
        text = text_encoder.config
        tokenizer = load_tokenizer(found, text.max_position_embeddings, text.vocab_size)
        vae = load_part(found, "vae", AutoencoderKL, frozen_dtype)
        unet = load_part(found, "unet", UNet2DConditionModel, "float32" if unet_learns else frozen_dtype)
        return DiffusionModel(unet, text_encoder, tokenizer, AutoencoderKLCodec(vae), {**schedule, **scheduler})
