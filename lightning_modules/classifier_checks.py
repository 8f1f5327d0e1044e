"""Which settings of a classifier cannot be, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synfer.foundation.validate import check_setting
from synfer.labels.affect_losses import AffectSettings
from synfer.labels.class_weights import check_class_weights
from synfer.labels.long_tail_losses import LossSettings, check_together


def check_classifier_settings(
    config: Mapping[str, Any], label_space: tuple[str, ...], loss: LossSettings, affect: AffectSettings
) -> None:
    """Checks the settings of an :class:`lightning_modules.classifier.ExpressionClassifier`.

    Args:
        config: all of them, by name.
        label_space: names of the expressions.
        loss: of the expressions.
        affect: valence and arousal.

    Raises:
        ValueError: one is out of range, or two do not fit each other.
    """
    for name in ("drop_rate", "label_smoothing", "momentum", "warmup_fraction"):
        check_setting(0 <= config[name] < 1, name, config[name], "a number in [0, 1)")
    for name in ("synthetic_loss_weight", "weight_decay"):
        check_setting(config[name] >= 0, name, config[name], "a number ≥ 0")
    check_setting(config["learning_rate"] > 0, "learning_rate", config["learning_rate"], "a number > 0")
    sam_rho = config["sam_rho"]
    check_setting(sam_rho is None or sam_rho > 0, "sam_rho", sam_rho, "a number > 0, or null")
    check_setting(config["in_channels"] in (1, 3), "in_channels", config["in_channels"], "1 or 3")
    check_setting(config["image_size"] >= 8, "image_size", config["image_size"], "at least 8 pixels")
    check_class_weights(config["class_weights"], label_space)
    check_together(loss, config["class_weights"], config["label_smoothing"])
    fine = not affect.enabled or loss.kind != "ldam"
    check_setting(fine, "affect.enabled", True, "false beside model.loss.kind 'ldam', whose last layer is a cosine")
