"""What an annotator refuses or warns of: its settings, its data's augmentation, the room for its cache, old heads."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from synfer.foundation.validate import check_setting
from synfer.networks.annotator_head import Branches
from synfer.networks.backbone import Stem
from synfer.networks.feature_cache import FeatureCache
from synfer.optimisation.optimiser import OptimiserName
from synfer.synthesis.diffusion.generator_reader import ReadLatents

NOT_IN_WEIGHTS = (
    "stem",
    "branches",
    "backbone",
    "backbone_kwargs",
    "num_heads",
    "feature_modules",
    "timestep",
    "latents",
    "map_size",
)
"""Settings that decide what a head's weights mean, whether or not their shapes show it."""


def check_annotator_settings(given: Mapping[str, Any]) -> None:
    """Checks all that can be checked before the generator is loaded.

    Args:
        given: arguments of ``LabelAnnotator`` by name, defaults in place of None.

    Raises:
        ValueError: a value out of range.
    """
    for name in ("dropout", "drop_rate", "label_smoothing", "warmup_fraction", "momentum"):
        check_setting(0 <= given[name] < 1, name, given[name], "a number in [0, 1)")
    check_setting(0 <= given["flip"] <= 1, "flip", given["flip"], "a share in [0, 1]")
    check_setting(given["learning_rate"] > 0, "learning_rate", given["learning_rate"], "a number > 0")
    for name in ("weight_decay", "synthetic_loss_weight"):
        check_setting(given[name] >= 0, name, given[name], "a number ≥ 0")
    for name in ("map_size", "width", "num_heads"):
        check_setting(given[name] >= 1, name, given[name], "at least 1")
    for name, least in (("widths", 1), ("depths", 0)):
        values = given[name]
        check_setting(len(values) > 0 and min(values) >= least, name, values, f"at least one number ≥ {least}")
    heads = given["num_heads"]
    check_setting(given["width"] % heads == 0, "width", given["width"], f"a multiple of num_heads ({heads})")
    for name, kind, form in (
        ("branches", Branches, "{}"),
        ("optimizer", OptimiserName, "one of {}"),
        ("stem", Stem, "one of {}"),
        ("latents", ReadLatents, "{}"),
    ):
        known = get_args(kind)
        listed = ", ".join(known) if "of" in form else f"{', '.join(known[:-1])} or {known[-1]}"
        check_setting(given[name] in known, name, given[name], form.format(listed))
    check_setting(
        len(given["feature_modules"]) > 0 or given["backbone"] is not None or given["branches"] == "attention",
        "feature_modules",
        given["feature_modules"],
        "at least one module, or a model.backbone that reads the latents",
    )


def check_settings_known(config: Mapping[str, Any], annotator: type) -> None:
    """Raises ValueError for a checkpoint whose head had settings that there are no more."""
    unknown = sorted(set(config) - set(inspect.signature(annotator).parameters))
    if unknown:
        raise ValueError(
            f"annotator checkpoint with the setting '{unknown[0]}', which there is no more: its head was built "
            "otherwise; train it again"
        )


def check_same_head(stored: Iterable[str], own: Iterable[str]) -> None:
    """Raises ValueError for weights of a head of another build, by the names of its tensors."""
    differing = sorted(set(stored) ^ set(own))
    if differing:
        raise ValueError(
            f"annotator checkpoint with a head of another build: '{differing[0]}' is on one side only "
            f"({len(differing)} such tensors); train it again"
        )


def check_same_generator(stored: str, own: str, exported_from: str | None, path: str) -> None:
    """Raises ValueError for a head that was trained on the features of another generator.

    Args:
        stored: fingerprint of the generator that it was trained on.
        own: fingerprint of the generator now.
        exported_from: what that one was rounded from; None = it was not.
        path: where it lies.
    """
    if stored not in (own, exported_from):
        raise ValueError(
            f"annotator checkpoint reads a generator with the fingerprint {stored}, but '{path}' has {own}: expected "
            "the generator that it was trained on, or that one's export"
        )


def check_has_uncached_faces(augmentation: Any) -> None:
    """Checks that a training shows the backbone faces without the generator's maps, as ``maps_tta`` needs.

    Args:
        augmentation: of the data; None = there is none.

    Raises:
        ValueError: it does not.
    """
    if augmentation is None or not augmentation.enabled or not augmentation.uncached_fraction > 0:
        raise ValueError(
            "model.maps_tta=true: found no face in training that is seen without the generator's maps, as half of "
            "each prediction is; expected data.augmentation.uncached_fraction > 0 or model.maps_tta=false"
        )


def views_to_cache(augmentation: Any, has_backbone: bool) -> int:
    """Returns in how many views each training face comes to the cache.

    Args:
        augmentation: of the data, None = there is none.
        has_backbone: whether the head can do with faces that are no stored version.

    Raises:
        ValueError: endlessly many views, or faces of which there is neither a cached view nor a backbone.
    """
    if augmentation is None or not augmentation.enabled:
        return 1
    if augmentation.uncached_fraction > 0 and not has_backbone:
        raise ValueError(
            f"data.augmentation.uncached_fraction={augmentation.uncached_fraction}: found no model.backbone (or "
            "model.branches=attention), which would read the faces that are no cached view; expected one, or "
            "data.augmentation.uncached_fraction=0"
        )
    if augmentation.cached_views is None:
        raise ValueError(
            "model.feature_cache keeps features of each view of a face: found data.augmentation.enabled=true "
            "with cached_views=null, expected data.augmentation.cached_views=6 or so, data.augmentation.enabled=false "
            "(model.flip mirrors faces then) or model.feature_cache=null"
        )
    return augmentation.cached_views


def announce_cache(cache: FeatureCache, rows: int, root: str) -> None:
    """Says how much a feature cache will take, and warns where the disk has less.

    Args:
        cache: as it is now.
        rows: faces, views and mirror images that will be in it.
        root: folder that holds it.
    """
    size, free = 2 * cache.width, FeatureCache.free_bytes(root)
    rank_zero_info(
        f"feature cache {cache.folder}: {len(cache)} faces there; all {rows} faces, views and "
        f"mirror images take {rows * size / 1e9:.2f} GB ({cache.width} numbers each)"
    )
    if (rows - len(cache)) * size > free:
        rank_zero_warn(
            f"feature cache {cache.folder}: {(rows - len(cache)) * size / 1e9:.2f} GB are to come, "
            f"found {free / 1e9:.2f} GB free: give model.feature_cache another disk, fewer "
            "data.augmentation.cached_views or null"
        )


def warn_if_uncalibrated(calibrated_at: int | None, step: int, where: str = "") -> None:
    """Warns of a temperature that is not of the last weights.

    Args:
        calibrated_at: step at which it was fitted; None = never.
        step: of the weights.
        where: begin of the line.
    """
    if calibrated_at == step or step == 0:
        return
    when = "was never fitted" if calibrated_at is None else f"was fitted at step {calibrated_at}"
    rank_zero_warn(
        f"{where}the annotator's temperature {when}, its weights are of step {step}: its probabilities may say too "
        "much or too little; expected a validation after the last step (trainer.check_val_every_n_epoch that divides "
        "max_epochs)"
    )
