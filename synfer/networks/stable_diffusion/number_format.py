"""Parts that do not learn may lie in memory in half precision; what learns is float32.

A network in half precision computes under autocast, whatever precision the run has: under ``bf16-mixed`` or
``16-mixed`` in the format of the run, under ``32-true`` in its own. So float32 adapters and the float32 latents and
text that come in need no casts of ours, on CPU and GPU alike.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

FrozenFormat = Literal["float32", "stored", "float16", "bfloat16"]
"""Number format of the parts that do not learn; "stored" = the one of their files."""

HALF = (torch.float16, torch.bfloat16)


def to_half(network: nn.Module, number_format: torch.dtype) -> None:
    """Rounds a network, in place, all but its normalisation.

    Normalisation has next to no weights, and in float32 it takes inputs of any format.

    Args:
        network: any.
        number_format: ``torch.float16`` or ``torch.bfloat16``.
    """
    network.to(number_format)
    for module in network.modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.float()


def in_stored_format(network: nn.Module) -> AbstractContextManager[Any]:
    """Returns the context to run a network in: autocast where it lies in half precision and no autocast is on."""
    weight = next(network.parameters())
    if weight.dtype not in HALF or torch.is_autocast_enabled(weight.device.type):
        return nullcontext()
    return torch.autocast(weight.device.type, weight.dtype)
