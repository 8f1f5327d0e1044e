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

GROUPED: dict[str, tuple[str, str]] = {
    **{name: ("network", name) for name in ("unet", "text_encoder", "scheduler", "codec", "codec_config")},
    **{f"drop_{name}": ("drop", name) for name in ("text", "au", "both")},
    **{name: ("execution", name) for name in ("channels_last", "bf16_sampling", "compile_backend")},
}
"""Setting of a generator that once stood alone → the group that it belongs to now, and its name there."""

TEST_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("judge", "features", "features_weights", "au_estimator", "test_expressions")),
    **{"test_samples": 1000, "test_batch_size": 100, "au_present_above": 0.5, "nearest_training": 4000},
}
"""Settings of a generator's test that were the generator's own → their defaults."""

LEFT: dict[str, frozenset[str]] = {"diffusion": frozenset(TEST_SETTINGS)}
"""Kind of module → settings of old files that say nothing of the trained module, and are passed over."""

MOVED: dict[str, str] = {
    **{f"model.{old}": f"model.{new}" for names in RENAMED.values() for old, new in names.items()},
    **{f"model.{old}": f"model.{group}.{name}" for old, (group, name) in GROUPED.items()},
    **{f"model.{name}": f"test.{name.removeprefix('test_')}" for name in TEST_SETTINGS},
    "data.augmentation.fresh": "data.augmentation.uncached_fraction",
    "data.augmentation.versions": "data.augmentation.cached_views",
    "layout.refinements": "layout.fixed_point_iterations",
}
"""Key of a setting, without ``init_args`` → its key now.

In files, and in the records of older runs, the present key is read in its place. On a command line too, unless the
setting has left its group for another: then the user is told.
"""


ADDED: dict[str, dict[str, Any]] = {"sampling": {"expression_strength": 1.0, "mention_expression": True}}
"""Group of settings → one that older files do not have → what they mean without it."""


def with_added(group: str, stored: Any, present: Any) -> Any:
    """Returns a group of stored settings with what it means without those that came later.

    Args:
        group: name of the group: "sampling".
        stored: its settings in a file; something else than a mapping stays as it is.
        present: the settings that it is to be compared with: only what they have is added.
    """
    if not isinstance(stored, Mapping) or not isinstance(present, Mapping):
        return stored
    return {**{name: value for name, value in ADDED.get(group, {}).items() if name in present}, **stored}


def present_settings(kind: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a file as its class takes them now.

    Args:
        kind: of the module that wrote it: "diffusion", "classifier", …
        stored: settings by the names that they had then.
    """
    renamed, left = RENAMED.get(kind, {}), LEFT.get(kind, frozenset())
    present = {renamed.get(name, name): value for name, value in stored.items() if name not in left}
    if kind != "diffusion":
        return present
    for old in [name for name in present if name in GROUPED]:
        group, name = GROUPED[old]
        present[group] = {name: present.pop(old), **present.get(group, {})}
    return present


def with_present_keys(flat: Mapping[str, T]) -> dict[str, T]:
    """Returns settings by dotted key, without ``init_args``, by their keys of now: ``model.warmup_fraction``."""
    class_path = str(flat.get("model.class_path", ""))
    present: dict[str, T] = {}
    for key, value in flat.items():
        new = present_key(key, class_path)
        if new == key or new not in flat:
            present[new] = value
    return present


def present_key(key: str, class_path: str = "") -> str:
    """Returns the key of now of a setting, or of a part of one that holds several: ``model.network.unet.norm_eps``.

    Args:
        key: dotted, without ``init_args``.
        class_path: of the model; "" = unknown.
    """
    if key in MOVED:
        return MOVED[key] if has_moved(key, class_path) else key
    group, _, rest = key.partition(".")
    name, dot, part = rest.partition(".")
    whole = f"{group}.{name}"
    return f"{MOVED[whole]}.{part}" if dot and name in GROUPED and has_moved(whole, class_path) else key


def has_moved(key: str, class_path: str) -> bool:
    """Whether a key of :data:`MOVED` is one that has moved, and not another model's own setting of that name.

    Args:
        key: without ``init_args``.
        class_path: of the model; "" = unknown, and taken for a generator's unless a classifier has that setting too.
    """
    group, _, name = key.partition(".")
    if group != "model" or (name not in TEST_SETTINGS and name not in GROUPED):
        return key in MOVED
    return is_generators(class_path) and bool(class_path or name != "channels_last")


def is_generators(class_path: str) -> bool:
    """Whether a class path is that of a generator, or empty: unknown. Others may have settings of the same names."""
    return not class_path or class_path.rpartition(".")[2] == "ExpressionGenerator"
