"""Frozen layers of a UNet that keep for the backward pass what the gradient of their input needs, and no more.

PyTorch's convolution keeps its input for the gradient of its weights, and each of norm, activation and product keeps
tensors of its own. Where the weights are frozen (LoRA, AU adapter) a convolution needs none of them, and norm with
activation can be computed again from what the norm was given, at a fraction of a convolution's work. Outputs and
gradients are those of the layers themselves; parameters and their names stay. Gates cost nothing; convolutions and
norms a fifth more time on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F


def keep_less(unet: nn.Module, gates_alone: bool = False) -> None:
    """Has the frozen convolutions, normalised activations and gates of a UNet of diffusers keep less, in place.

    Args:
        unet: what learns in it requires gradients already, and is left as it is.
        gates_alone: leave convolutions and norms as they are.
    """
    module: Any
    for module in unet.modules():
        if type(module) is GEGLU and _is_frozen(module.proj):
            module.__class__ = _FrozenGEGLU
        elif gates_alone:
            continue
        elif type(module) is nn.Conv2d and module.padding_mode == "zeros" and _is_frozen(module):
            module.__class__ = _FrozenConv2d
        elif isinstance(module, ResnetBlock2D) and _has_plain_norms(module):
            module.norm1.__class__ = module.norm2.__class__ = _NormThenSilu
            module.nonlinearity = _SiluOfTime()


def _is_frozen(module: nn.Module) -> bool:
    return not any(p.requires_grad for p in module.parameters())


def _has_plain_norms(block: Any) -> bool:
    norms = (block.norm1, block.norm2)
    return (
        block.time_embedding_norm == "default"  # nothing comes between norm and activation
        and type(block.nonlinearity) is nn.SiLU
        and all(type(norm) is nn.GroupNorm and _is_frozen(norm) for norm in norms)
    )


class _FrozenConv2d(nn.Conv2d):
    """A convolution whose input nobody keeps."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns what the convolution does."""
        if not (torch.is_grad_enabled() and input.requires_grad):
            return super().forward(input)
        made: Tensor = _Convolution.apply(input, self.weight, self.bias, self)
        return made


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.input, ctx.layer = (input.shape, input.dtype), layer
        return F.conv2d(input, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        layer, (shape, number_format) = ctx.layer, ctx.input
        # Of the input the shape alone is asked for.
        found = torch.ops.aten.convolution_backward(
            gradient,
            gradient.new_empty(1).expand(shape),
            weight.to(gradient.dtype),
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            False,
            (0, 0),
            layer.groups,
            (True, False, False),
        )
        return found[0].to(number_format), None, None, None


class _NormThenSilu(nn.GroupNorm):
    """A group norm and the SiLU after it."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns the activations of the normalised input."""
        if not (torch.is_grad_enabled() and input.requires_grad):
            return F.silu(super().forward(input))
        made: Tensor = _NormAndSilu.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return made


class _NormAndSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        ctx.save_for_backward(input, weight, bias)
        kind = input.device.type
        ctx.settings = groups, eps, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        return F.silu(F.group_norm(input, groups, weight, bias, eps))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias = ctx.saved_tensors
        groups, eps, enabled, number_format = ctx.settings
        with torch.enable_grad(), torch.autocast(input.device.type, number_format, enabled=enabled):
            again = input.detach().requires_grad_()
            made = F.silu(F.group_norm(again, groups, weight, bias, eps))
        return torch.autograd.grad(made, again, gradient)[0], None, None, None, None


class _SiluOfTime(nn.Module):
    """The activation of a block whose norms have one already: that of the time embedding is left."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns the SiLU of an embedding (B, D), and maps (B, C, h, w) as they are."""
        return F.silu(input) if input.ndim == 2 else input


class _FrozenGEGLU(GEGLU):  # type: ignore[misc]
    """A gated GELU that keeps what is projected, and not its activations (Shazeer, arXiv 2002.05202)."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Returns h · gelu(g) of the projection's halves h and g."""
        made: Tensor = _Gate.apply(self.proj(hidden_states))
        return made


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor) -> Tensor:
        ctx.save_for_backward(projected)
        hidden, gate = projected.chunk(2, dim=-1)
        return hidden * F.gelu(gate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (projected,) = ctx.saved_tensors
        hidden, gate = projected.chunk(2, dim=-1)
        of_gate = torch.ops.aten.gelu_backward(gradient * hidden, gate)
        return torch.cat([gradient * F.gelu(gate), of_gate], dim=-1)
