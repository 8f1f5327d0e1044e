"""Settings of trained modules that have another name by now, or none: what was written with the old ones still loads.

Contract C10. Checkpoints and folders hold settings by name, and so do configs and the records of runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

RENAMED: dict[str, dict[str, str]] = {
    "diffusion": {"warmup_share": "warmup_fraction"},
    "classifier": {"warmup_share": "warmup_fraction"},
    "annotator": {"warmup_share": "warmup_fraction"},
}
"""Kind of module → old name of a setting → its name now."""

TEST_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("judge", "features", "features_weights", "au_estimator", "test_expressions")),
    **{"test_samples": 1000, "test_batch_size": 100, "au_present_above": 0.5, "nearest_training": 4000},
}
"""Settings of a generator's test that were the generator's own → their defaults."""

LEFT: dict[str, frozenset[str]] = {"diffusion": frozenset(TEST_SETTINGS)}
"""Kind of module → settings of old files that say nothing of the trained module, and are passed over."""

MOVED: dict[str, str] = {
    **{f"model.{name}": f"test.{name.removeprefix('test_')}" for name in TEST_SETTINGS},
    "data.augmentation.fresh": "data.augmentation.uncached_fraction",
    "data.augmentation.versions": "data.augmentation.cached_views",
    "layout.refinements": "layout.fixed_point_iterations",
}
"""Key of a setting, without ``init_args`` → its key now.

In files, and in the records of older runs, the present key is read in its place. On a command line too, unless the
setting has left its group for another: then the user is told.
"""

EVERYWHERE: dict[str, str] = {old: new for names in RENAMED.values() for old, new in names.items()}
"""Old name → name now, whichever module it belongs to: no old name has come to mean something else."""


def present_settings(kind: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a file as its class takes them now.

    Args:
        kind: of the module that wrote it: "diffusion", "classifier", …
        stored: settings by the names that they had then.
    """
    renamed, left = RENAMED.get(kind, {}), LEFT.get(kind, frozenset())
    return {renamed.get(name, name): value for name, value in stored.items() if name not in left}


def with_present_keys(flat: Mapping[str, T]) -> dict[str, T]:
    """Returns settings by dotted key, without ``init_args``, by their keys of now: ``model.warmup_fraction``."""
    of_generator = is_generators(str(flat.get("model.class_path", "")))
    present: dict[str, T] = {}
    for key, value in flat.items():
        group, dot, name = key.rpartition(".")
        own = group == "model" and name in TEST_SETTINGS and not of_generator
        new = key if own else MOVED.get(key, f"{group}{dot}{EVERYWHERE.get(name, name)}")
        if new == key or new not in flat:
            present[new] = value
    return present


def is_generators(class_path: str) -> bool:
    """Whether a class path is that of a generator, or empty: unknown. Others may have settings of the same names."""
    return not class_path or class_path.rpartition(".")[2] == "ExpressionGenerator"
