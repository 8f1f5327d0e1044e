"""Settings of trained modules that have another name by now, or none: what was written with the old ones still loads.

Contract C10. Checkpoints and folders hold settings by name, and so do configs and the records of runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED: dict[str, dict[str, str]] = {
    "diffusion": {"warmup_share": "warmup_fraction"},
    "classifier": {"warmup_share": "warmup_fraction"},
    "annotator": {"warmup_share": "warmup_fraction"},
}
"""Kind of module → old name of a setting → its name now."""

LEFT: dict[str, frozenset[str]] = {
    "diffusion": frozenset(
        {
            "test_samples",
            "test_expressions",
            "test_batch_size",
            "judge",
            "features",
            "features_weights",
            "au_estimator",
            "au_present_above",
            "nearest_training",
        }
    ),
}
"""Kind of module → settings of old files that say nothing of the trained module, and are passed over."""

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


def present_key(key: str) -> str:
    """Returns a dotted key of a configuration, ``model.warmup_share``, by the name that its last part has now."""
    group, dot, name = key.rpartition(".")
    return f"{group}{dot}{EVERYWHERE.get(name, name)}"
