"""Which networks a small diffusion model is built of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class NetworkSettings:
    """What differs from the embedded small diffusion model; the parts of a loaded ``base`` come with it.

    Attributes:
        unet: keys that differ from the small UNet.
        text_encoder: keys that differ from the small text encoder.
        scheduler: keys that differ from the noise schedule.
        codec: "space_to_depth" (exact, no training) or "autoencoder_kl" (learned in the same fit).
        codec_config: arguments of the codec.
    """

    unet: dict[str, Any] | None = None
    text_encoder: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    codec: Literal["space_to_depth", "autoencoder_kl"] = "space_to_depth"
    codec_config: dict[str, Any] | None = None
