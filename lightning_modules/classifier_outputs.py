"""What a classifier's outputs mean, compared with those of a checkpoint: its weights would load all the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synfer.foundation.validate import check_setting


def check_same_outputs(saved: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Compares outputs of a checkpoint with those of now; files of before a setting have what was then the only way.

    Args:
        saved: settings in the checkpoint.
        config: settings now.

    Raises:
        ValueError: valence and arousal are rated by one of them alone, cosines have another scale, or another head.
    """
    before, now = ((settings.get("head") or {}).get("kind", "linear") for settings in (saved, config))
    check_setting(before == now, "head.kind", now, f"{before}, as in the checkpoint")
    for name in ("enabled", "alone"):
        before, now = ((settings.get("affect") or {}).get(name, False) for settings in (saved, config))
        check_setting(before == now, f"affect.{name}", now, f"{before}, as in the checkpoint")
    before, now = (_scale_of_cosines(settings.get("loss") or {}) for settings in (saved, config))
    expected = "none (loss.kind is not ldam)" if before is None else f"{before} with loss.kind=ldam"
    check_setting(before == now, "loss.scale", now, f"{expected}, as in the checkpoint")


def _scale_of_cosines(loss: Mapping[str, Any]) -> float | None:
    """Returns by what a network's cosines are multiplied, as its loss says; None = its last layer is a plain one."""
    return loss["scale"] if loss.get("kind") == "ldam" else None
