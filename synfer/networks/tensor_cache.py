"""Tensors of one shape on disk, by key, bit for bit as they were put in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from synfer.networks.cache_room import CacheRoom
from synfer.networks.feature_cache import FeatureCache

_STORED_AS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "int16"}  # numpy knows no bfloat16
_SHARD_BYTES = 16 * 2**20
"""What a killed process may have to compute again."""


class TensorCache:
    """A :class:`FeatureCache` whose vectors are tensors of one shape and number format.

    Args:
        root: folder that holds caches.
        identity: everything that the tensors depend on besides their key, as plain types; it names the folder.
        like: one tensor of them, for shape and number format.
        shard_rows: rows gathered in memory before they are written; None = about 16 MB of them.
        room: bound on it and on other caches of the folder; None = as many as are added.

    Raises:
        ValueError: another number format than float32, float16 and bfloat16.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        identity: Mapping[str, Any],
        like: Tensor,
        shard_rows: int | None = None,
        room: CacheRoom | None = None,
    ) -> None:
        if like.dtype not in _STORED_AS:
            raise ValueError(f"tensor cache: found {like.dtype}, expected one of {sorted(map(str, _STORED_AS))}")
        self.shape, self.dtype = tuple(like.shape), like.dtype
        about = {**identity, "shape": list(self.shape), "dtype": str(self.dtype)}
        width, stored = like.numel(), _STORED_AS[like.dtype]
        rows = shard_rows or max(1, _SHARD_BYTES // (width * like.element_size()))
        self.vectors = FeatureCache(root, about, width, rows, stored, room)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def is_full(self) -> bool:
        """Whether new tensors were thrown away for want of room."""
        return self.vectors.is_full

    @property
    def row_bytes(self) -> int:
        """Bytes of a tensor."""
        return self.vectors.row_bytes

    def refresh(self) -> None:
        """Takes in what other processes have written since."""
        self.vectors.refresh()

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Returns the positions of keys without a tensor, each key once."""
        return self.vectors.missing(keys)

    def rows(self, keys: Sequence[bytes]) -> Tensor:
        """Returns the tensors of n keys, (n, …), on the CPU.

        Raises:
            KeyError: a key without a tensor.
        """
        stored = torch.from_numpy(self.vectors.rows(keys))
        return stored.view(self.dtype).view(len(keys), *self.shape)

    def add(self, keys: Sequence[bytes], tensors: Tensor) -> None:
        """Takes in n new tensors, (n, …).

        Raises:
            ValueError: of another shape or number format.
        """
        if tensors.dtype != self.dtype or tuple(tensors.shape[1:]) != self.shape:
            raise ValueError(
                f"tensor cache: found {tensors.dtype} {tuple(tensors.shape)}, expected {self.dtype} "
                f"{(len(keys), *self.shape)}"
            )
        flat = tensors.detach().cpu().contiguous().flatten(1)
        self.vectors.add(keys, (flat.view(torch.int16) if self.dtype == torch.bfloat16 else flat).numpy())

    def flush(self) -> None:
        """Writes what is still in memory."""
        self.vectors.flush()
