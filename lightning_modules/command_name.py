"""The command that runs, as users write it."""

from __future__ import annotations


def command_name(stage: str) -> str:
    """Returns "fit", "validate", "test" or "predict"; formatted, Lightning's own value would print its enumeration."""
    return str(getattr(stage, "value", stage))
