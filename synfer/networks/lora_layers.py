"""peft's LoRA layers, computed in fewer passes where nothing but the two small matrices learns."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F


def fuse_lora(unet: nn.Module) -> None:
    """Has the LoRA layers of a network take fewer passes over their activations, in place.

    y = x Wᵀ + b + s (x Aᵀ) Bᵀ (Hu et al., arXiv 2106.09685) as peft computes it is five passes forward and eight
    backward, each a kernel of its own; here it is three and five: sums go into the product before them. Parameters,
    names and results stay, up to rounding.

    Args:
        unet: with adapters of peft, or without.
    """
    for module in unet.modules():
        if type(module) is LoraLinear and type(module.base_layer) is nn.Linear:
            module.__class__ = _FusedLora


class _FusedLora(LoraLinear):  # type: ignore[misc]
    """A LoRA layer over a frozen linear one."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Returns what the layer does, (…, D)."""
        name = self._only_plain_adapter()
        base = self.base_layer
        if args or kwargs or name is None or base.weight.requires_grad or not torch.is_grad_enabled():
            whole: Tensor = super().forward(x, *args, **kwargs)
            return whole
        down, up, scaling = self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        kind = x.device.type
        computed_in = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else base.weight.dtype
        made: Tensor = _LowRankUpdate.apply(x, base.weight, base.bias, down, up, scaling, computed_in)
        return made

    def _only_plain_adapter(self) -> str | None:
        """Returns the one adapter that is in use, None where more of peft is asked for."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        plain = name in self.lora_A and name not in self.lora_variant and not self.lora_bias.get(name, False)
        return name if plain and isinstance(self.lora_dropout[name], nn.Identity) else None


class _LowRankUpdate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
        computed_in: torch.dtype,
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            rows = x.reshape(-1, x.shape[-1]).to(computed_in)
            own_bias = None if bias is None else bias.to(computed_in)
            made = F.linear(rows, weight.to(computed_in), own_bias)
            low = rows @ down.to(computed_in).t()
            made.addmm_(low, up.to(computed_in).t(), alpha=scaling)
        ctx.save_for_backward(rows, low, weight, down, up)
        ctx.settings = x.shape, x.dtype, scaling, computed_in
        return made.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, weight, down, up = ctx.saved_tensors
        shape, number_format, scaling, computed_in = ctx.settings
        with torch.autocast(gradient.device.type, enabled=False):
            given = gradient.reshape(-1, gradient.shape[-1]).to(computed_in)
            of_low = given @ (up * scaling).to(computed_in)
            of_up = (given.t() @ low).to(up.dtype).mul_(scaling)
            of_down = (of_low.t() @ rows).to(down.dtype)
            of_x = None
            if ctx.needs_input_grad[0]:
                of_x = given @ weight.to(computed_in)
                of_x = of_x.addmm_(of_low, down.to(computed_in)).view(shape).to(number_format)
        return of_x, None, None, of_down, of_up, None, None
