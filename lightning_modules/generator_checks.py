"""What a generator's settings have to fulfil by themselves, asked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synfer.foundation.validate import check_setting
from synfer.optimisation.diffusion_optimiser import check_optimiser


def check_generator(settings: Mapping[str, Any], cache_path: str | None) -> None:
    """Refuses settings out of range, or that do not fit each other.

    Args:
        settings: arguments of ``ExpressionGenerator``, groups as mappings.
        cache_path: of the cache of its frozen parts, which is no setting of the model; None = none.

    Raises:
        ValueError: names the setting.
    """
    gamma, alpha, rank = settings["min_snr_gamma"], settings["lora_alpha"], settings["au_rank"]
    on_base, trained, network = settings["base"] is not None, settings["trained"], settings["network"]
    check_setting(gamma is None or gamma > 0, "min_snr_gamma", gamma, "a number above 0 or null")
    check_setting(
        on_base or cache_path is None, "cache.path", cache_path, "null without model.base: text encoders learn"
    )
    check_setting(settings["lora_rank"] >= 1, "lora_rank", settings["lora_rank"], "at least 1")
    check_setting(alpha is None or alpha > 0, "lora_alpha", alpha, "a number above 0 or null")
    if rank is not None:
        low_rank = on_base and trained in ("adapter", "lora")
        wanted = "at least 1" if low_rank else "null without model.base and model.trained 'adapter' or 'lora'"
        check_setting(low_rank and rank >= 1, "au_rank", rank, wanted)
    for key in ("noise_offset", "distribution_matching"):
        check_setting(settings[key] >= 0, key, settings[key], "at least 0")
    if network["codec"] == "autoencoder_kl" and not on_base and settings["autoencoder_steps"] < 1:
        raise ValueError("model.autoencoder_steps: found 0, expected at least 1 to train codec 'autoencoder_kl'")
    check_optimiser(settings)
    if (features := settings["alignment"]["features"]) is not None:
        check_setting(cache_path is None, "cache.path", cache_path, f"null beside model.alignment.features {features}")
        backend = settings["execution"]["compile_backend"]
        expected = "null beside model.alignment.features: it listens inside the UNet"
        check_setting(backend is None, "execution.compile_backend", backend, expected)
