"""A LoRA from elsewhere as the start of a training: read as diffusers reads it, and taken over whole or not at all."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synfer.foundation.checkpoint_file import check_finite
from synfer.foundation.file_reading import FileError, did_you_mean, reading

_KEY = "model.lora_weights"
_EXPECTED = "LoRA weights of a UNet in a layout that diffusers reads (safetensors)"
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class LoRAWeights:
    """A LoRA of a UNet: layer i adds ``scaling[i]`` · up · down to its weight.

    Attributes:
        down: layer → (r, in).
        up: layer → (out, r).
        scaling: layer → alpha ÷ r.
        path: where it was read.
    """

    down: dict[str, Tensor]
    up: dict[str, Tensor]
    scaling: dict[str, float]
    path: str

    def load_into(self, unet: nn.Module) -> None:
        """Takes the weights over into the LoRA layers of a UNet, whose rank and scaling stay as they are.

        Where the scalings differ, "up" is multiplied so that the effect is the file's.

        Raises:
            ValueError: a layer is missing or too many, or of another rank or size; nothing has been taken over then.
        """
        layers: dict[str, Any] = {name: m for name, m in unet.named_modules() if hasattr(m, "lora_A")}
        if not layers:
            raise ValueError(f"{_KEY}: found '{self.path}' for a model without LoRA, expected model.trained 'lora'")
        self._check_names(layers)
        pairs = {name: (next(iter(m.lora_A.values())), next(iter(m.lora_B.values()))) for name, m in layers.items()}
        for name, (down, up) in pairs.items():
            self._check_shape(name, self.down[name], down.weight, rank_axis=0)
            self._check_shape(name, self.up[name], up.weight, rank_axis=1)
        with torch.no_grad():
            for name, (down, up) in pairs.items():
                own = next(iter(layers[name].scaling.values()))
                down.weight.copy_(self.down[name])
                up.weight.copy_(self.up[name].float() * (self.scaling[name] / own))

    def _check_names(self, layers: Mapping[str, nn.Module]) -> None:
        surplus, missing = sorted(self.down.keys() - layers.keys()), sorted(layers.keys() - self.down.keys())
        if surplus:
            raise FileError(
                f"{_KEY} '{self.path}': found the layer '{surplus[0]}' ({len(surplus)} such), which has no LoRA in the "
                f"model{did_you_mean(surplus[0], missing)}"
            )
        if missing:
            raise FileError(
                f"{_KEY} '{self.path}': found no weights for the layer '{missing[0]}' ({len(missing)} missing), "
                "expected LoRA on the same layers as the model has it (model.lora_targets)"
            )

    def _check_shape(self, name: str, found: Tensor, own: Tensor, rank_axis: int) -> None:
        if found.shape == own.shape:
            return
        others = [[n for axis, n in enumerate(tensor.shape) if axis != rank_axis] for tensor in (found, own)]
        if others[0] == others[1]:
            raise FileError(
                f"{_KEY} '{self.path}': found rank {found.shape[rank_axis]} in the layer '{name}', the model has "
                f"{own.shape[rank_axis]} (model.lora_rank), expected the same"
            )
        raise FileError(
            f"{_KEY} '{self.path}': found the shape {tuple(found.shape)} in the layer '{name}', the network has "
            f"{tuple(own.shape)}: a LoRA of another model"
        )


def start_from_lora(unet: nn.Module, path: str | None) -> None:
    """Lets a UNet with LoRA layers begin at stored ones.

    Args:
        unet: with LoRA layers.
        path: file, folder or Hub id; None = they stay as they are.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no LoRA that fits, or a UNet without LoRA.
    """
    if path is not None:
        read_lora(path).load_into(unet)


def read_lora(path: str | Path) -> LoRAWeights:
    """Returns the LoRA in a file, a folder or a Hub id, in any layout that diffusers converts.

    That is diffusers' and peft's names with the prefix ``unet.``, the older ones with ``processor``, and kohya's. The
    strength is that of the adapter metadata, of kohya's alphas, or else alpha = r, as everywhere in diffusers.

    Args:
        path: with weights in safetensors.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no LoRA that diffusers can read, or one that has more than LoRA of a UNet's layers in it.
    """
    place = Path(path)
    if place.is_dir() and not any(place.glob("*.safetensors")):
        raise FileError(f"{_KEY} '{path}': found no file *.safetensors in it, expected {_EXPECTED}")
    if place.suffix and place.suffix != ".safetensors" and place.is_file():
        raise FileError(f"{_KEY} '{path}': found a file '*{place.suffix}', expected {_EXPECTED}")
    with reading(_KEY, path, _EXPECTED):
        tensors, alphas, metadata = _as_diffusers(str(path))
        check_finite(tensors, _KEY, place)
    named = _layers(_of_the_unet(tensors, str(path)), str(path))
    down, up = ({name: pair[i] for name, pair in named.items()} for i in (0, 1))
    ranks = {name: tensor.shape[0] for name, tensor in down.items()}
    return LoRAWeights(down, up, _scaling(ranks, alphas, metadata, str(path)), str(path))


def _as_diffusers(path: str) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
    """Returns tensors by diffusers' names, kohya's alphas by layer, and the adapter metadata of the UNet."""
    from diffusers import StableDiffusionPipeline

    if not Path(path).exists() and not _may_be_hub_id(path):
        raise FileNotFoundError(2, "no such file or folder", path)
    tensors, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
        path, use_safetensors=True, return_lora_metadata=True
    )
    of_unet = {k.removeprefix("unet."): v for k, v in (metadata or {}).items() if k.startswith("unet.")}
    return tensors, dict(alphas or {}), of_unet


def _may_be_hub_id(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and not path.endswith(".safetensors")


def _of_the_unet(tensors: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Returns the tensors by peft's names, without the prefix.

    Raises:
        FileError: another prefix, or none.
    """
    foreign = sorted(name for name in tensors if not name.startswith("unet."))
    if foreign:
        of = " of the text encoder, which stays frozen" if foreign[0].startswith("text_encoder") else ""
        raise FileError(
            f"{_KEY} '{path}': found '{foreign[0]}' ({len(foreign)} such){of}, expected names that begin with 'unet.'"
        )
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    plain = {name.removeprefix("unet."): tensor for name, tensor in tensors.items()}
    return dict(convert_unet_state_dict_to_peft(plain))


def _layers(tensors: Mapping[str, Tensor], path: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns layer → (down, up).

    Raises:
        FileError: something else among them, or half a pair.
    """
    other = sorted(name for name in tensors if not name.endswith((_DOWN, _UP)))
    if other:
        raise FileError(f"{_KEY} '{path}': found '{other[0]}' ({len(other)} such), expected LoRA's two matrices alone")
    names = sorted({name.removesuffix(_DOWN).removesuffix(_UP) for name in tensors})
    if not names:
        raise FileError(f"{_KEY} '{path}': found no tensor, expected {_EXPECTED}")
    for name in names:
        half = [name + end for end in (_DOWN, _UP) if name + end not in tensors]
        if half:
            raise FileError(f"{_KEY} '{path}': found no '{half[0]}' beside its other half, expected both")
    return {name: (tensors[name + _DOWN], tensors[name + _UP]) for name in names}


def _scaling(
    ranks: Mapping[str, int], alphas: Mapping[str, float], metadata: Mapping[str, Any], path: str
) -> dict[str, float]:
    """Returns layer → alpha ÷ r."""
    if alphas:
        from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

        plain = {name.removeprefix("unet.").removesuffix(".alpha"): float(a) for name, a in alphas.items()}
        by_layer = {name.partition(".lora_A")[0]: a for name, a in convert_unet_state_dict_to_peft(plain).items()}
        return {name: by_layer.get(name, float(rank)) / rank for name, rank in ranks.items()}
    if "lora_alpha" not in metadata:
        return dict.fromkeys(ranks, 1.0)
    _check_metadata_ranks(ranks, metadata, path)
    power = math.sqrt if metadata.get("use_rslora") else float
    pattern = dict(metadata.get("alpha_pattern") or {})
    chosen = {name: _of_pattern(name, pattern, metadata["lora_alpha"]) for name in ranks}
    return {name: chosen[name] / power(rank) for name, rank in ranks.items()}


def _check_metadata_ranks(ranks: Mapping[str, int], metadata: Mapping[str, Any], path: str) -> None:
    """Refuses a header that tells of other ranks than the weights have: its alpha would be of another LoRA."""
    said = metadata.get("r")
    common = Counter(ranks.values()).most_common(1)[0][0]
    if said is not None and not metadata.get("rank_pattern") and said != common:
        raise FileError(
            f"{_KEY} '{path}': found rank {common} in the weights and {said} in the adapter metadata, expected the same"
        )


def _of_pattern(layer: str, pattern: Mapping[str, float], default: float) -> float:
    """Returns the entry for a layer; keys are regular expressions for the end of its name, as in peft."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", layer)), default)
