"""A short name for weights: equal weights have it in common, and others do not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from torch import Tensor


def fingerprint(tensors: Iterable[tuple[str, Tensor]], prefix: str = "") -> str:
    """Returns 16 hex digits of SHA-256 over names and values.

    Args:
        tensors: (name, tensor) pairs, in any order; values count in float32, wherever they lie.
        prefix: what else tells one network from another.
    """
    digest = hashlib.sha256(prefix.encode())
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
