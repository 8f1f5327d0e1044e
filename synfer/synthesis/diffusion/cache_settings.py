"""What a diffusion model's training keeps on disk, so that frozen networks need not run again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheSettings:
    """Latents and text tokens by content, for a training on a loaded base, whose codec and text encoder are frozen.

    Attributes:
        path: folder of the cache, which any number of runs may share; null = none, and both run at every step.
        text: whether text tokens are kept too: a caption takes as much as the latents of seven pictures of 512 pixels.
        unload: take codec and text encoder out of memory once all is there; they come back for a validation.
    """

    path: str | None = None
    text: bool = True
    unload: bool = True
