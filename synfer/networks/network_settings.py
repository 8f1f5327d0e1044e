"""Which networks a small diffusion model is built of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from synfer.foundation.validate import check_setting


@dataclass(frozen=True)
class NetworkSettings:
    """What differs from the embedded small diffusion model; the parts of a loaded ``base`` come with it.

    What a distilled network is, ``largest_scale`` and ``few_steps``, is said here for a base too.

    Attributes:
        unet: keys that differ from the small UNet.
        text_encoder: keys that differ from the small text encoder.
        scheduler: keys that differ from the noise schedule.
        codec: "space_to_depth" (exact, no training) or "autoencoder_kl" (learned in the same fit).
        codec_config: arguments of the codec.
        largest_scale: the network takes the guidance scale, from 1 to this, as an input, and a guided step is one pass
            (``DistilledGenerator`` teaches it); None = it takes none, and a guided step is two.
        few_steps: the number of steps that it was distilled to, of the sampler "few_step"; None = any.

    Raises:
        ValueError: a scale that is not above 1, fewer than one step, or few steps of a network without a scale.
    """

    unet: dict[str, Any] | None = None
    text_encoder: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    codec: Literal["space_to_depth", "autoencoder_kl"] = "space_to_depth"
    codec_config: dict[str, Any] | None = None
    largest_scale: float | None = None
    few_steps: int | None = None

    def __post_init__(self) -> None:
        scale, steps = self.largest_scale, self.few_steps
        check_setting(scale is None or 1 < scale < float("inf"), "network.largest_scale", scale, "above 1, or null")
        check_setting(steps is None or steps >= 1, "network.few_steps", steps, "at least 1, or null")
        check_setting(
            steps is None or scale is not None, "network.few_steps", steps, "null without network.largest_scale"
        )
