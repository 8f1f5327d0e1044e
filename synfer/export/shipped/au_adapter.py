"""The AU adapter of an export: weights in IP-Adapter's layout, and the way from named action units to their input.

Needs torch and diffusers alone. The weights also load without this file, by ``pipe.load_ip_adapter``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn

NULL = "an action unit that is not known (NaN) has the value 0 and the flag 0; a row of them is the unconditional input"


class AUAdapter(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Weights of an AU adapter, by the names that ``load_ip_adapter`` knows, and what its input means.

    The input of an image is one row per region of the face: the intensities in [0, 1] of all action units, 0 outside
    of the region, then as many flags, 1 where the intensity is known.

    Args:
        au_names: names of the A action units, in the order of the input.
        regions: names of the R regions of the face, in the order of the input's rows.
        region_masks: R rows of A numbers, 1 where the region holds the action unit.
        cross_attention_dim: width of the tokens.
        hidden_sizes: width of each cross-attention layer, in the order of ``unet.attn_processors``.
        scale: strength of the AU branch.
        null_convention: how the input says that an action unit is not known; for the reader.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        au_names: Sequence[str],
        regions: Sequence[str],
        region_masks: Sequence[Sequence[int]],
        cross_attention_dim: int,
        hidden_sizes: Sequence[int],
        scale: float = 1.0,
        null_convention: str = NULL,
    ) -> None:
        super().__init__()
        width = 2 * len(au_names)
        layers = [nn.Linear(width, width), nn.GELU(), nn.Linear(width, cross_attention_dim)]
        self.image_proj = nn.ModuleDict({"proj": nn.Sequential(*layers, nn.LayerNorm(cross_attention_dim))})
        # IP-Adapter numbers all attention layers; those over the text have the odd numbers.
        self.ip_adapter = nn.ModuleDict(
            {
                str(2 * place + 1): nn.ModuleDict(
                    {name: nn.Linear(cross_attention_dim, size, bias=False) for name in ("to_k_ip", "to_v_ip")}
                )
                for place, size in enumerate(hidden_sizes)
            }
        )

    def embed(self, action_units: Tensor | Sequence[Mapping[str, float]]) -> Tensor:
        """Returns the adapter's input, float32 (n, regions, 2A).

        Args:
            action_units: intensities in [0, 1], (n, A) in the order of ``au_names`` with NaN for those that are not
                known; or n mappings from names to intensities, in which those left out are not known.

        Raises:
            ValueError: another number of columns, a name that the adapter does not have, or an intensity outside
                [0, 1].
        """
        au = action_units if isinstance(action_units, Tensor) else self._by_name(action_units)
        names = self.config.au_names
        if au.ndim != 2 or au.shape[1] != len(names):
            raise ValueError(f"action_units: found the shape {tuple(au.shape)}, expected (n, {len(names)})")
        au = au.float()
        known = ~torch.isnan(au)
        if not ((au[known] >= 0) & (au[known] <= 1)).all():
            raise ValueError("action_units: found an intensity outside [0, 1], expected one in it, or NaN")
        masks = torch.tensor(self.config.region_masks, dtype=torch.float32, device=au.device)
        return torch.cat([torch.nan_to_num(au)[:, None] * masks, known[:, None] * masks], dim=-1)

    def _by_name(self, rows: Sequence[Mapping[str, float]]) -> Tensor:
        names = list(self.config.au_names)
        unknown = [name for row in rows for name in row if name not in names]
        if unknown:
            raise ValueError(f"action_units: found the name '{unknown[0]}', expected some of {', '.join(names)}")
        return torch.tensor([[float(row.get(name, "nan")) for name in names] for row in rows]).reshape(-1, len(names))

    def attach(self, unet: UNet2DConditionModel) -> None:
        """Puts copies of the weights into a UNet, in place of any other adapter."""
        stored: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in self.state_dict().items():
            group, _, key = name.partition(".")
            stored[group][key] = tensor
        unet._load_ip_adapter_weights(stored, low_cpu_mem_usage=False)
        for processor in _processors(unet):
            processor.scale = [self.config.scale]

    def take_over(self, unet: UNet2DConditionModel) -> None:
        """Copies the weights of the adapter that is in a UNet."""
        projection = unet.encoder_hid_proj.image_projection_layers[0].state_dict()
        weights: dict[str, Tensor] = {}
        for theirs, ours in _PROJECTION.items():
            for kind in ("weight", "bias"):
                weights[f"image_proj.proj.{ours}.{kind}"] = projection[f"{theirs}.{kind}"]
        for number, processor in zip(self.ip_adapter, _processors(unet), strict=True):
            weights[f"ip_adapter.{number}.to_k_ip.weight"] = processor.to_k_ip[0].weight
            weights[f"ip_adapter.{number}.to_v_ip.weight"] = processor.to_v_ip[0].weight
        self.load_state_dict(weights)


_PROJECTION = {"ff.net.0.proj": 0, "ff.net.2": 2, "norm": 3}
"""Layer of diffusers' ``IPAdapterFullImageProjection`` → its number in IP-Adapter's files."""


def _processors(unet: UNet2DConditionModel) -> list[Any]:
    return [processor for processor in unet.attn_processors.values() if hasattr(processor, "to_k_ip")]
