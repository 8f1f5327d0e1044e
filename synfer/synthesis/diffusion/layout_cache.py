"""Inverted latents of training faces, kept on disk: what is made of a face does not change where it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synfer.foundation.on_rank_zero import warn_on_rank_zero
from synfer.networks.cache_room import CacheRoom
from synfer.networks.feature_cache import image_keys
from synfer.networks.tensor_cache import TensorCache
from synfer.synthesis.diffusion.denoising_state import DenoisingState

_SHARD_BYTES, _SHARD_ROWS = 16 * 2**20, 512
"""How much is gathered before it is written, whichever comes first: what a killed process may have to make again."""


def layout_keys(images: Tensor, captions: Sequence[str]) -> list[bytes]:
    """Returns a 16-byte key of each face and of the caption that it is inverted under: uint8 (n, C, H, W), n texts."""
    faces = image_keys(np.ascontiguousarray(images.cpu().numpy()))
    return [
        blake2b(face + caption.encode(), digest_size=16).digest() for face, caption in zip(faces, captions, strict=True)
    ]


def layout_identity(state: DenoisingState, network: str, num_inverted: int, iterations: int) -> dict[str, Any]:
    """Returns what an inversion depends on besides the face and its caption, as plain types.

    Args:
        state: of the synthesis: size, sampler, strength of the action units, precision.
        network: fingerprint of the diffusion model.
        num_inverted: steps, as for :func:`~synfer.synthesis.diffusion.inversion.ddim_invert`.
        iterations: its fixed-point iterations.
    """
    sampler, device = state.sampler, state.latents.device.type
    steps = range(len(sampler.timesteps) - num_inverted, len(sampler.timesteps))
    with state.autocast():
        half = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
    return {
        "kind": "layout",
        "network": network,
        "image_size": state.image_size,
        "timesteps": [int(sampler.timesteps[step]) for step in steps],
        "levels": [[float(x) for level in sampler.noise_levels(step) for x in level] for step in steps],
        "fixed_point_iterations": iterations,
        "au_scale": state.settings.au_scale,
        "autocast": half,
    }


class LayoutCache:
    """Layouts in memory-mapped files of float16, by the content of face and caption.

    Each rank reads what all have written and writes for itself. A layout is rounded to float16 whether it was kept or
    has just been made, so that a face does not depend on who came first.

    Args:
        folder: of the cache, which any number of processes and runs may share.
        most_bytes: bound on all that lies in it.

    Attributes:
        found: layouts that were there, of those asked for.
        made: faces that were inverted.
        filled_ahead: whether somebody has gone through all faces.
    """

    def __init__(self, folder: str | Path, most_bytes: int) -> None:
        self._folder = Path(folder)
        self.most_bytes = most_bytes
        self._room = CacheRoom(folder, most_bytes)
        self._cache: TensorCache | None = None
        self._identity: dict[str, Any] | None = None
        self._broken = self._full_said = False
        self.filled_ahead = False
        self.found = self.made = 0

    def layouts(
        self, identity: dict[str, Any], keys: Sequence[bytes], like: Tensor, invert: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Returns the layouts of n faces, float32 (n, C, h, w) of float16's numbers; inverts those that are not there.

        Args:
            identity: see :func:`layout_identity`.
            keys: see :func:`layout_keys`.
            like: latents (n, C, h, w), for shape and device.
            invert: takes int64 (m,), numbers of faces, and returns their layouts, (m, C, h, w).
        """
        cache = self._open(identity, like)
        kept = {} if cache is None else self._read(cache, keys)
        first: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            first.setdefault(key, i)
        new = [i for key, i in first.items() if key not in kept]
        self.found += len(keys) - len(new)
        self.made += len(new)
        if new:
            made = invert(torch.tensor(new)).cpu().float()
            half = made.half()
            fits = half.isfinite().flatten(1).all(1)
            rounded = torch.where(fits.view(-1, *[1] * (made.ndim - 1)), half.float(), made)
            kept.update(zip((keys[i] for i in new), rounded, strict=True))
            if cache is not None:
                self._keep(cache, [keys[i] for i, good in zip(new, fits.tolist(), strict=True) if good], half[fits])
        return torch.stack([kept[key] for key in keys]).to(like.device)

    def holds(self, identity: dict[str, Any], keys: Sequence[bytes], like: Tensor) -> list[bool]:
        """Returns which of n faces have a layout here; all, where no more can be kept."""
        cache = self._open(identity, like)
        if cache is None or cache.is_full:
            return [True] * len(keys)
        return [not cache.missing([key]) for key in keys]

    def flush(self) -> None:
        """Writes what is still in memory."""
        if self._cache is not None:
            self._keep(self._cache, [], torch.empty(0, *self._cache.shape, dtype=torch.float16), at_once=True)

    def close(self) -> None:
        """Writes what is still in memory and gives the folder back."""
        self.flush()
        self._room.close()
        self._cache = self._identity = None

    def _open(self, identity: dict[str, Any], like: Tensor) -> TensorCache | None:
        if self._broken:
            return None
        if self._cache is None or identity != self._identity:
            try:
                self.flush()
                one = torch.empty(like.shape[1:], dtype=torch.float16)
                rows = max(1, min(_SHARD_ROWS, _SHARD_BYTES // (2 * one.numel())))
                self._cache = TensorCache(self._folder, identity, one, rows, self._room)
                self._identity = identity
            except OSError as error:
                self._give_up(error)
                return None
        return self._cache

    def _read(self, cache: TensorCache, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """Returns the layouts that are there, float32 on the CPU, by key."""
        try:
            if cache.missing(keys):
                cache.refresh()  # another rank may have made them meanwhile
            missing = {keys[i] for i in cache.missing(keys)}
            there = [key for key in dict.fromkeys(keys) if key not in missing]
            return dict(zip(there, cache.rows(there).float(), strict=True)) if there else {}
        except (OSError, ValueError) as error:
            self._give_up(error)
            return {}

    def _keep(self, cache: TensorCache, keys: list[bytes], layouts: Tensor, at_once: bool = False) -> None:
        if self._broken:
            return
        try:
            if keys:
                cache.add(keys, layouts)
            if at_once:
                cache.flush()
        except OSError as error:
            self._give_up(error)
        if cache.is_full and not self._full_said:
            self._full_said = True
            warn_on_rank_zero(
                f"layout.cache_dir '{self._folder}': found it full within layout.cache_bytes={self.most_bytes}: "
                "further layouts are inverted each time"
            )

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        warn_on_rank_zero(
            f"layout.cache_dir '{self._folder}': cannot be used ({' '.join(str(error).split())}): layouts are inverted "
            "each time"
        )
