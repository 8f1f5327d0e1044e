"""A network, a tokenizer and a noise schedule in the folder layout of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synfer.export.exporter import NumberFormat
from synfer.foundation.json_file import read_json, write_json
from synfer.foundation.safetensors_file import write_safetensors

DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS = "diffusion_pytorch_model.safetensors", "model.safetensors"


def in_dtype(weights: Mapping[str, Tensor], dtype: NumberFormat, of: str) -> dict[str, Tensor]:
    """Returns copies of weights in another number format; whole numbers stay as they are.

    Args:
        weights: by name.
        dtype: the format.
        of: whose weights, for the error: "unet".

    Raises:
        ValueError: a weight is not finite in that format.
    """
    to: torch.dtype = getattr(torch, dtype)
    cast = {n: tensor.detach().to(to) if tensor.is_floating_point() else tensor for n, tensor in weights.items()}
    broken = [name for name, tensor in cast.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ValueError(
            f"{of}: {len(broken)} weights are not finite in {dtype}, '{broken[0]}' the "
            "first; expected finite ones (try --dtype float32, or an earlier checkpoint)"
        )
    return cast


def write_network(folder: Path, network: Any, weights: Mapping[str, Tensor], dtype: NumberFormat) -> None:
    """Writes a network of diffusers.

    Args:
        folder: of this network alone.
        network: whose config is written.
        weights: by the names that its class has for them.
        dtype: number format.

    Raises:
        ValueError: a weight is not finite in that format.
    """
    write_safetensors(folder / DIFFUSERS_WEIGHTS, in_dtype(weights, dtype, folder.name))
    network.save_config(folder)


def write_text_encoder(folder: Path, encoder: Any, dtype: NumberFormat) -> None:
    """Writes a CLIP text encoder for transformers 4 and 5.

    5 writes the names of its weights without the prefix that 4 asks for, and 4 then goes on with random ones; with the
    prefix both open it.

    Args:
        folder: of the encoder alone.
        encoder: a ``CLIPTextModel``.
        dtype: number format.
    """
    prefix = "text_model."
    named = {name if name.startswith(prefix) else prefix + name: t for name, t in encoder.state_dict().items()}
    write_safetensors(folder / TRANSFORMERS_WEIGHTS, in_dtype(named, dtype, folder.name))
    config = {k: v for k, v in encoder.config.to_dict().items() if not k.startswith("_")}
    config |= {"architectures": [type(encoder).__name__], "torch_dtype": dtype}
    config.pop("dtype", None)  # the same under the name that 4 does not know
    write_json(folder / "config.json", config)


def write_tokenizer(folder: Path, tokenizer: Any) -> str:
    """Writes a tokenizer for transformers 4 and 5, and returns the name of its class.

    4 reads the vocabulary of a CLIP tokenizer from files that 5 no longer writes, and does not know the general class
    of 5.
    """
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
    settings = read_json(folder / "tokenizer_config.json", "config of a tokenizer")
    name = str(settings["tokenizer_class"]).removesuffix("Fast")
    name = "PreTrainedTokenizerFast" if name in ("TokenizersBackend", "PreTrainedTokenizer") else name
    here = ("is_local", "local_files_only", "backend", "name_or_path")  # say how this process came by it
    kept = {k: v for k, v in settings.items() if k not in here}
    write_json(folder / "tokenizer_config.json", {**kept, "tokenizer_class": name})
    return name


def write_schedule(folder: Path, scheduler: Any) -> None:
    """Writes a noise schedule as it was given.

    diffusers writes what the class has filled in as well, and then a sampler of another class, made from the stored
    schedule, takes these values and not its own: other timesteps than from the schedule that was trained with.

    Args:
        folder: of the schedule alone.
        scheduler: a scheduler of diffusers.
    """
    filled_in = {*scheduler.config.get("_use_default_values", ()), "_use_default_values"}
    given = {key: value for key, value in scheduler.config.items() if key not in filled_in}
    write_json(folder / "scheduler_config.json", {**given, "_class_name": type(scheduler).__name__})


def plain_weights(network: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of a UNet by the names of its class: LoRA added to them, the AU adapter left out."""
    merged: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if not hasattr(module, "base_layer") or not hasattr(module, "get_delta_weight"):
            continue
        delta = sum(module.get_delta_weight(adapter).float() for adapter in module.active_adapters)
        merged[f"{name}.weight"] = module.base_layer.weight.detach().float() + delta.detach()
    kept = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in network.state_dict().items()
        if ".lora_" not in name and ".processor." not in name and not name.startswith("encoder_hid_proj.")
    }
    return {name: merged.get(name, tensor) for name, tensor in kept.items()}
