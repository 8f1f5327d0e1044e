"""One network out of a folder in diffusers' layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from synfer.foundation.checkpoint_file import check_finite
from synfer.foundation.file_reading import FileError
from synfer.networks.stable_diffusion.base_folder import BaseFolder
from synfer.networks.stable_diffusion.number_format import HALF, FrozenFormat, to_half
from synfer.networks.stable_diffusion.weight_files import WeightFiles, whole_weight_files

_SURPLUS = ("position_ids",)
"""What old files hold beside the weights: a row of counted numbers."""


def load_part(base: BaseFolder, part: str, kind: Any, number_format: FrozenFormat = "float32") -> Any:
    """Returns one network, whatever number format it is stored in, and under whatever variant's name.

    Args:
        base: the model.
        part: folder in it: "vae", "unet", …
        kind: class that reads it.
        number_format: of the weights in memory.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: damaged, pickled weights alone, tensors missing or left over, or weights that are not finite.
    """
    files = whole_weight_files(base.path / part, base.name)
    network, info = kind.from_pretrained(
        str(base.path),
        subfolder=part,
        variant=files.variant,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # said below
    )
    for name, stored, own in sorted(info.get("mismatched_keys") or ()):
        raise FileError(
            f"model.base '{base.name}': found '{name}' of shape {_shape(stored)} in the weights of {part}, expected "
            f"{_shape(own)} as its config asks for"
        )
    for found, what in (("missing_keys", "found no"), ("unexpected_keys", "found a surplus")):
        names = sorted(name for name in info.get(found) or () if not name.endswith(_SURPLUS))
        if names:
            raise FileError(
                f"model.base '{base.name}': {what} '{names[0]}' in the weights of {part} ({len(names)} such tensors), "
                "expected those that its config asks for and no others"
            )
    check_finite(network.state_dict(), "model.base", f"{base.name}/{part}")
    chosen = _stored_format(base.path / part, files) if number_format == "stored" else getattr(torch, number_format)
    network.float()
    if chosen in HALF:
        to_half(network, chosen)
        check_finite(network.state_dict(), "model.frozen_dtype", f"{number_format} of {base.name}/{part}")
    return network


def _shape(sizes: Iterable[int]) -> str:
    return "×".join(map(str, sizes)) or "()"


def _stored_format(folder: Path, files: WeightFiles) -> torch.dtype:
    """Returns the half precision of a file in which all weights are in it; float32 for any other."""
    name = next(name for name in files.names if name.endswith(".safetensors"))
    with safe_open(folder / name, "pt") as file:
        formats = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 (no dictionary)
    return {frozenset({"F16"}): torch.float16, frozenset({"BF16"}): torch.bfloat16}.get(
        frozenset(formats & {"F16", "BF16", "F32", "F64"}), torch.float32
    )
