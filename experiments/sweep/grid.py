"""The cartesian product of a sweep's values, each point with a name that stays the same."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.sweep.sweep_error import SweepError
from experiments.sweep.sweep_file import SweepFile

_LONGEST_NAME = 120
_DISTRIBUTIONS = ("constant", "categorical", "int_uniform", "q_uniform")


@dataclass(frozen=True)
class GridPoint:
    """One run of a grid.

    Attributes:
        name: made from the swept values alone, such as ``synthetic_ratio=0.5-seed_everything=1``.
        constants: keys that have one value in the whole sweep.
        swept: keys of which this is one value of several.
    """

    name: str
    constants: dict[str, Any]
    swept: dict[str, Any]


def expand(sweep: SweepFile) -> list[GridPoint]:
    """Returns the points of a grid in W&B's order: the last parameter changes fastest.

    Raises:
        SweepError: a method other than grid, a parameter without finitely many values, a value listed twice, or no
            point at all.
    """
    if sweep.method != "grid":
        raise SweepError(
            f"{sweep.path}: method {sweep.method} stays with W&B (wandb sweep {sweep.path}, then wandb agent <id>), "
            "expected grid"
        )
    values = {key: grid_values(key, description, sweep) for key, description in sweep.parameters.items()}
    if not values or not all(values.values()):
        empty = next((f"parameter {key} has no values" for key, found in values.items() if not found), "no parameters")
        raise SweepError(f"{sweep.path}: empty grid: {empty}, expected at least one value each")
    constants = {key: found[0] for key, found in values.items() if len(found) == 1}
    swept = {key: found for key, found in values.items() if len(found) > 1}
    points = [
        GridPoint(point_name(dict(zip(swept, point, strict=True))), constants, dict(zip(swept, point, strict=True)))
        for point in itertools.product(*swept.values())
    ]
    seen: set[str] = set()
    for point in points:
        if point.name in seen:
            raise SweepError(f"{sweep.path}: run {point.name} twice, expected each value once")
        seen.add(point.name)
    return points[: sweep.run_cap]


def grid_values(key: str, description: Mapping[str, Any], sweep: SweepFile) -> list[Any]:
    """Returns the values of one parameter: ``value``, ``values``, whole numbers or steps of ``q`` from min to max."""
    distribution = description.get("distribution")
    bounds = description.get("min"), description.get("max")
    if distribution is None and None not in bounds and all(isinstance(bound, int) for bound in bounds):
        distribution = "int_uniform"
    if distribution is None or distribution in ("constant", "categorical"):
        if "value" in description:
            return [description["value"]]
        if isinstance(description.get("values"), list):
            return description["values"]
    elif distribution in ("int_uniform", "q_uniform"):
        return _steps(key, description, 1 if distribution == "int_uniform" else description.get("q", 1), sweep)
    kind = distribution or ("uniform" if None not in bounds else "nothing")
    raise SweepError(
        f"{sweep.path}: parameter {key}: found {kind}, expected value, values or one of {', '.join(_DISTRIBUTIONS)} "
        "(method grid)"
    )


def _steps(key: str, description: Mapping[str, Any], step: Any, sweep: SweepFile) -> list[Any]:
    low, high = description.get("min"), description.get("max")
    numbers = isinstance(low, (int, float)) and isinstance(high, (int, float)) and isinstance(step, (int, float))
    if not numbers or step <= 0 or high < low:  # type: ignore[operator]
        raise SweepError(f"{sweep.path}: parameter {key}: min {low}, max {high}, q {step}: expected min ≤ max, q > 0")
    count = math.floor((high - low) / step + 1e-9) + 1  # type: ignore[operator]
    exact = [low + step * number for number in range(count)]  # type: ignore[operator]
    return [float(f"{value:.12g}") if isinstance(value, float) else value for value in exact]


def point_name(swept: Mapping[str, Any]) -> str:
    """Returns a folder name made from swept values, the same for the same values in every invocation.

    Keys are shortened to their last part where that is clear. A name that would be too long, or whose values hold
    characters that do not belong into a file name, ends in a hash of the values.
    """
    if not swept:
        return "run"
    tails = [key.rpartition(".")[2] for key in swept]
    words = []
    for key, tail in zip(swept, tails, strict=True):
        words.append(f"{tail if tails.count(tail) == 1 else key}={value_text(swept[key])}")
    plain = "-".join(words)
    name = file_name(plain)
    if name != plain or len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"
    return name


def file_name(text: str) -> str:
    """Returns a text with an underscore for whatever does not belong into a file name."""
    return re.sub(r"[^A-Za-z0-9._+=-]+", "_", text).lstrip(".") or "_"


def value_text(value: Any) -> str:
    """Returns a value as the command line reads it: null, true, 0.5, a name, or JSON for lists and mappings."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return json.dumps(value, default=str)
