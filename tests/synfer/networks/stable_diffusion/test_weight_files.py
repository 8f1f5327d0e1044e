from __future__ import annotations

import pytest

from synfer.networks.stable_diffusion.weight_files import choose_weight_files

UNET = "diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("names", "variant", "chosen"),
    [
        ([f"{UNET}.safetensors", f"{UNET}.fp16.safetensors", f"{UNET}.bin"], None, [f"{UNET}.safetensors"]),
        ([f"{UNET}.non_ema.safetensors", f"{UNET}.fp16.safetensors"], "fp16", [f"{UNET}.fp16.safetensors"]),
        ([f"{UNET}.bf16.safetensors", "config.json"], "bf16", [f"{UNET}.bf16.safetensors"]),
        (["model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"], None, ["model.safetensors"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
            None,
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (
            ["model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"],
            "fp16",
            ["model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"],
        ),
        (  # as diffusers wrote them once
            [f"{UNET}-00001-of-00001.fp16.safetensors", f"{UNET}.safetensors.index.fp16.json"],
            "fp16",
            [f"{UNET}-00001-of-00001.fp16.safetensors", f"{UNET}.safetensors.index.fp16.json"],
        ),
        # What a whole file and its shards hold is the same.
        (
            ["model.safetensors", "model-00001-of-00001.safetensors", "model.safetensors.index.json"],
            None,
            ["model.safetensors"],
        ),
    ],
)
def test_of_all_files_one_set_of_weights_is_chosen(names: list[str], variant: str | None, chosen: list[str]) -> None:
    files = choose_weight_files(names)
    assert files is not None
    assert files.variant == variant and sorted(files.names) == sorted(chosen)
    assert (files.index is not None) == any(name.endswith(".json") for name in chosen)


@pytest.mark.parametrize(
    "names",
    [[], ["config.json", "pytorch_model.bin"], ["open_clip_model.safetensors"], ["pytorch_lora_weights.safetensors"]],
)
def test_other_files_are_no_weights(names: list[str]) -> None:
    assert choose_weight_files(names) is None
