"""What may be asked of a distilled network: the settings that it has learned, and no others."""

from __future__ import annotations

from synfer.foundation.validate import check_setting
from synfer.synthesis.request import SamplingSettings


def check_distilled_sampling(
    settings: SamplingSettings, largest_scale: float | None, few_steps: int | None, group: str = ""
) -> None:
    """Refuses settings that a distilled network has not learned, before anything is made with them.

    Args:
        settings: how to denoise.
        largest_scale: that the network hears; None = it is none, and takes any settings.
        few_steps: that it was distilled to; None = any.
        group: of the command line, where the settings are those of a module: "model".

    Raises:
        ValueError: names the setting.
    """
    if largest_scale is None:
        return
    begins = f"{group}.sampling" if group else "sampling"
    scale = settings.guidance_scale
    check_setting(
        scale <= largest_scale, "guidance_scale", scale, f"1 … {largest_scale:g}, which this network hears", begins
    )
    negative = settings.negative_prompt
    check_setting(
        not negative, "negative_prompt", f"'{negative}'", "none: a distilled network has no unconditional pass", begins
    )
    if few_steps is None:
        return
    check_setting(
        settings.scheduler == "few_step", "scheduler", settings.scheduler, "few_step, as it was distilled", begins
    )
    check_setting(
        settings.num_steps == few_steps, "num_steps", settings.num_steps, f"{few_steps}, as it was distilled", begins
    )
