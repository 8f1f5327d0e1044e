"""Whether a folder holds a model that this project can condition, told by its configs before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synfer.foundation.file_reading import FileError
from synfer.foundation.json_file import read_json
from synfer.networks.stable_diffusion.base_folder import PARTS, BaseFolder, describe_folder

_EXPECTED = "expected the shape of Stable Diffusion 1.x or 2.x"
_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
_TEXT_KINDS = ("clip_text_model", "clip")
_CHANNELS = {
    5: "as for depth",
    7: "as for upscaling by four",
    8: "as for editing by instruction",
    9: "as for inpainting",
}
_CONDITIONS = {
    "addition_embed_type": {"text_time": "as in SDXL"},
    "class_embed_type": {"projection": "as in unCLIP", "simple_projection": "as in AudioLDM"},
    "num_class_embeds": {1000: "as for upscaling by four"},
    "encoder_hid_dim_type": {"ip_image_proj": "as with an IP-Adapter in it"},
    "time_cond_proj_dim": {256: "as in a latent consistency model"},
}
"""Inputs that Stable Diffusion 1.x and 2.x have not → values that tell who has."""


def check_parts(base: BaseFolder) -> None:
    """Refuses a folder without the parts of Stable Diffusion.

    Raises:
        FileNotFoundError: a part is not there.
        ValueError: a folder of something else.
    """
    inside = {part for part in PARTS if (base.path / part).is_dir()}
    if "unet" not in inside and (found := describe_folder(base.path)) is not None:
        raise FileError(f"model.base '{base.name}': found {found}, {_EXPECTED}")
    if missing := [part for part in PARTS if part not in inside]:
        raise FileNotFoundError(
            f"model.base '{base.name}': found no folder '{missing[0]}', expected a diffusers layout"
        )
    if (base.path / "text_encoder_2").is_dir():
        raise FileError(f"model.base '{base.name}': found a second text encoder as in SDXL, {_EXPECTED}")
    for part in (*_CLASSES, "text_encoder"):
        if not (base.path / part / "config.json").is_file():
            odd = sorted(file.name for file in (base.path / part).iterdir())[:1]
            seen = f" beside '{odd[0]}'" if odd else ""
            raise FileNotFoundError(
                f"model.base '{base.name}': found no '{part}/config.json'{seen}, expected the layout of diffusers and "
                "transformers"
            )


def check_shape(base: BaseFolder) -> None:
    """Refuses networks that do not fit this project or each other.

    Raises:
        ValueError: SDXL, inpainting, depth, flow matching, class embeddings, an encoder of another kind or width, …
    """
    unet, vae, text = (read_part_config(base, part) for part in ("unet", "vae", "text_encoder"))
    for part, config in (("unet", unet), ("vae", vae)):
        found = config.get("_class_name", _CLASSES[part])
        if found != _CLASSES[part]:
            raise FileError(f"model.base '{base.name}': found a {part} of class {found}, expected {_CLASSES[part]}")
    for part, config in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        if config.get("quantization_config"):
            raise FileError(
                f"model.base '{base.name}': found quantised weights in {part}, expected float32, float16 or bfloat16"
            )
    _check_unet(base.name, unet, vae.get("latent_channels", 4))
    _check_vae(base.name, vae)
    _check_text_encoder(base.name, text, unet.get("cross_attention_dim", 1280))


def read_part_config(base: BaseFolder, part: str, file: str = "config.json") -> dict[str, Any]:
    """Returns the config of one part as it is stored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON of names and values.
    """
    return read_json(Path(base.path) / part / file, f"model.base '{base.name}': config of {part}", "one of diffusers")


def _check_unet(base: str, unet: Mapping[str, Any], latents: int) -> None:
    for key, who in _CONDITIONS.items():
        if (value := unet.get(key)) is not None:
            also = f" {who[value]}" if value in who else ""
            shown = f"'{value}'" if isinstance(value, str) else value
            raise FileError(f"model.base '{base}': found a UNet with {key} {shown}{also}, {_EXPECTED}")
    taken, made = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if taken != latents or made != latents:
        also = f" {_CHANNELS[taken]}" if latents == 4 and taken in _CHANNELS else ""
        raise FileError(
            f"model.base '{base}': found a UNet that takes {taken} channels{also} and makes {made}, expected {latents} "
            "like the latents of its VAE"
        )


def _check_vae(base: str, vae: Mapping[str, Any]) -> None:
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if vae.get(key) is not None:
            raise FileError(
                f"model.base '{base}': found a VAE with {key}, as in Stable Diffusion 3 and Flux, expected "
                "scaling_factor alone"
            )


def _check_text_encoder(base: str, text: Mapping[str, Any], wanted: Any) -> None:
    kind = text.get("model_type", _TEXT_KINDS[0])
    if kind not in _TEXT_KINDS:
        raise FileError(
            f"model.base '{base}': found a text encoder of kind '{kind}', expected CLIP ('clip_text_model')"
        )
    own = text.get("text_config") if kind == "clip" else None
    width = (own if isinstance(own, Mapping) else text).get("hidden_size", 512)
    if width != wanted:
        raise FileError(
            f"model.base '{base}': found a text encoder of width {width} beside a UNet that reads {wanted} "
            "(cross_attention_dim), expected the same"
        )
