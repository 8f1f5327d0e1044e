"""The AU adapter: action units → one token per face region → decoupled cross-attention in every cross-attention layer.

SynFER steers a diffusion model with action units through a second pair of key and value projections per cross-attention
layer (out = Attn_text + s · Attn_au, same query), as IP-Adapter does for images (Ye et al. 2023). diffusers has the
attention processors and the projection layer, so the adapter is theirs in their own layout; ours is the way from named
action units to their input: the AU vector is split by face region (brows, eyes, nose, mouth), so that the MLP makes one
token of each, and each AU comes with a flag that tells "does not act" from "unknown".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterFullImageProjection, MultiIPAdapterImageProjection
from torch import Tensor, nn
from torch.nn.utils import parametrize

from synfer.faces.action_units import REGIONS


def region_masks(au_names: Sequence[str]) -> Tensor:
    """Returns float (R, A): 1 where an action unit moves that region.

    Raises:
        ValueError: an action unit that belongs to no region.
    """
    masks = torch.tensor([[float(name in units) for name in au_names] for units in REGIONS.values()])
    lost = [name for name, total in zip(au_names, masks.sum(0), strict=True) if total == 0]
    if lost:
        raise ValueError(f"action unit '{lost[0]}' belongs to no face region: expected one of {sorted(REGIONS)}")
    return masks


def embed_action_units(au: Tensor, masks: Tensor) -> Tensor:
    """Splits AU vectors by region: the adapter's input, diffusers' ``ip_adapter_image_embeds``.

    Args:
        au: float (B, A) in [0, 1], NaN = unknown. A row of NaN is the unconditional input.
        masks: (R, A) from :func:`region_masks`.

    Returns:
        float (B, R, 2A): the intensities of the region's units, then 1 where they are known.
    """
    known = ~torch.isnan(au)
    values = torch.nan_to_num(au, nan=0.0)
    return torch.cat([values[:, None] * masks, known[:, None] * masks], dim=-1)


class AUTokens(list[Tensor]):
    """One tensor of AU tokens, (B, R, D), that :class:`AUProjection` has made already: it passes them on."""


class AUProjection(MultiIPAdapterImageProjection):  # type: ignore[misc]
    """diffusers' projection of IP-Adapter inputs to tokens, which lets finished tokens through.

    Tokens do not depend on the timestep: sampling makes them once, not once per step.
    """

    def forward(self, image_embeds: list[Tensor]) -> list[Tensor]:
        """Returns AU tokens [(B, R, D)] of AU inputs [(B, R, 2A)]."""
        return list(image_embeds) if isinstance(image_embeds, AUTokens) else super().forward(image_embeds)


class LowRankChange(nn.Module):
    """W + B·A, W being fixed: what a layer learns beyond the weights that it starts from (Hu et al., arXiv 2106.09685).

    Args:
        weight: W, (out, in).
        rank: r, the rows of A and the columns of B.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, weight.shape[1], device=weight.device))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the changed weight, float32 (out, in)."""
        return weight.float() + self.up @ self.down


def attach_au_adapter(
    unet: UNet2DConditionModel, num_action_units: int, scale: float = 1.0, rank: int | None = None
) -> None:
    """Adds the AU branch to a UNet, in place; its K/V start as copies of the text K/V.

    Args:
        unet: any ``UNet2DConditionModel`` with cross-attention.
        num_action_units: A.
        scale: s, strength of the AU branch.
        rank: of what K/V learn beyond these copies, which then stay as they are; None = all of them learn.

    Raises:
        ValueError: the UNet has no cross-attention layer.
    """
    tokens = len(REGIONS)
    width = unet.config.cross_attention_dim
    processors: dict[str, AttnProcessor2_0 | IPAdapterAttnProcessor2_0] = {}
    for name in unet.attn_processors:
        if not name.endswith("attn2.processor"):
            processors[name] = AttnProcessor2_0()
            continue
        attention = unet.get_submodule(name.removesuffix(".processor"))
        processor = IPAdapterAttnProcessor2_0(attention.to_k.out_features, width, num_tokens=(tokens,), scale=scale)
        with torch.no_grad():
            processor.to_k_ip[0].weight.copy_(attention.to_k.weight)
            processor.to_v_ip[0].weight.copy_(attention.to_v.weight)
        processors[name] = processor.to(attention.to_k.weight)
        if rank is not None:
            for layer in (processor.to_k_ip[0], processor.to_v_ip[0]):
                change = LowRankChange(layer.weight, rank)
                parametrize.register_parametrization(layer, "weight", change, unsafe=True)  # half becomes float32
    if not any(isinstance(p, IPAdapterAttnProcessor2_0) for p in processors.values()):
        raise ValueError("the UNet has no cross-attention layer: the AU adapter has nothing to attach to")
    unet.set_attn_processor(processors)
    projection = IPAdapterFullImageProjection(image_embed_dim=2 * num_action_units, cross_attention_dim=width)
    unet.encoder_hid_proj = AUProjection([projection]).to(unet.dtype)
    unet.config.encoder_hid_dim_type = "ip_image_proj"


def set_au_scale(unet: UNet2DConditionModel, scale: float) -> None:
    """Sets s, the strength of the AU branch (0 switches it off), in every layer."""
    for processor in unet.attn_processors.values():
        if isinstance(processor, IPAdapterAttnProcessor2_0):
            processor.scale = [scale]


def au_adapter_parameters(unet: UNet2DConditionModel) -> list[torch.nn.Parameter]:
    """Returns what the adapter learns: K/V of the AU branch, or their changes of low rank, and the projection."""
    parameters = list(unet.encoder_hid_proj.parameters())
    for processor in unet.attn_processors.values():
        if isinstance(processor, IPAdapterAttnProcessor2_0):
            parameters.extend(p for name, p in processor.named_parameters() if not name.endswith(".original"))
    return parameters
