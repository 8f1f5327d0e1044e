"""bfloat16 on processors that have no units for it."""

from __future__ import annotations

from functools import cache

import torch

from synfer.foundation.on_rank_zero import warn_on_rank_zero


def computes_bfloat16_fast(device_type: str) -> bool:
    """Whether torch hands bfloat16 to fast kernels: on a CPU without AVX-512 (or Arm's bf16) it loops by itself.

    A convolution is then ten times slower than in float32 (measured with torch 2.14 on AVX2), not twice as fast.
    """
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # torch's own question before it chooses
    return device_type != "cpu" or asked is None or bool(asked())


@cache
def warn_of_slow_bfloat16(key: str, found: str, expected: str) -> None:
    """Warns once, on rank 0, that this processor computes bfloat16 slowly; call it where it is about to.

    Args:
        key: setting that asked for bfloat16.
        found: its value.
        expected: the value that computes in float32.
    """
    warn_on_rank_zero(
        f"{key}: found {found} on a processor without bfloat16 units, where it is several times slower than float32, "
        f"expected {expected}"
    )


def bfloat16_autocast(device: torch.device, enabled: bool, key: str) -> torch.autocast:
    """Returns the context in which networks run in bfloat16 where that is wanted, and warns where it is slow.

    Args:
        device: of the networks.
        enabled: whether it is wanted.
        key: the setting that says so, for the warning.
    """
    if enabled and not computes_bfloat16_fast(device.type):
        warn_of_slow_bfloat16(key, "true", "false")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
