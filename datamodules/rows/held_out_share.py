"""Which training rows stand in for a validation split that a data set does not have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from datamodules.rows.groups import units
from datamodules.rows.sample_table import SampleTable
from datamodules.setting_range import check_range
from synfer.foundation.counter_based_random import keyed_uniform
from synfer.foundation.random_streams import Stream


@dataclass(frozen=True)
class ValidationShare:
    """How validation rows are taken from the training rows.

    Attributes:
        fraction: their share, in (0, 1), the same in each class.
        seed: of the choice, and of nothing else: runs with other seeds, and the generator, guide and voters of a mixed
            run, hold out the same rows.
        groups: regular expression that finds in a sample id whom it shows, by its first group or as a whole: rows of
            one person stay together. None = as the reader knows the people or photographs, where it does.

    Raises:
        ValueError: a share outside its range, or no regular expression.
    """

    fraction: float
    seed: int = 0
    groups: str | None = None

    def __post_init__(self) -> None:
        check_range("val_fraction", self.fraction, 0 < self.fraction < 1, "a share in (0, 1), or null")
        if self.groups is not None:
            try:
                re.compile(self.groups)
            except re.error as error:
                raise ValueError(
                    f"data.val_groups: found '{self.groups}' ({error}), expected a regular expression such as '(\\w+)_'"
                ) from None

    def state_dict(self) -> dict[str, Any]:
        """Returns the settings in plain types, for checkpoints and the record of a run."""
        return asdict(self)

    def held_out(self, table: SampleTable) -> np.ndarray:
        """Returns which rows are held out, bool (N,).

        Equal pictures stay together, as do the rows of one person where ``groups`` tells them apart. A class of two
        groups or more has at least one row on either side; the only row of a class stays in training.

        Raises:
            ValueError: too few rows to hold any out.
        """
        person = persons(table.sample_id, self.groups)
        group = units(table.content_hash, table.group if person is None else np.array(person))
        chosen = stratified_groups(group, table.label, group_keys(table.content_hash, group), self.fraction, self.seed)
        if not chosen.any() or chosen.all():
            known = self.groups is not None or table.group is not None
            people = f" of {len(np.unique(group))} persons (data.val_groups)" if known else ""
            raise ValueError(
                f"data.val_fraction={self.fraction:g}: found {len(table)} training rows{people}, too few to hold some "
                "out; expected at least two different faces of an expression, or a folder val"
            )
        return chosen


def persons(sample_id: Sequence[str] | np.ndarray, pattern: str | None) -> list[str] | None:
    """Returns whom each row shows, as its sample id tells; None without a pattern.

    Raises:
        ValueError: the pattern finds nothing in a sample id.
    """
    if pattern is None:
        return None
    expression, found = re.compile(pattern), []
    for name in map(str, sample_id):
        match = expression.search(name)
        if match is None:
            raise ValueError(
                f"data.val_groups='{pattern}': found no match in '{name}', expected one in every sample id"
            )
        found.append(str(match[1] if expression.groups else match[0]))
    return found


def group_keys(content_hash: np.ndarray, group: np.ndarray) -> dict[int, int]:
    """Returns a number for each group that depends on its pictures alone, not on names or order."""
    keys: dict[int, int] = {}
    for number, digits in zip(group.tolist(), content_hash.tolist(), strict=True):
        keys[number] = min(keys.get(number, 1 << 64), int(digits, 16))
    return keys


def stratified_groups(
    group: np.ndarray, label: np.ndarray, keys: Mapping[int, int], fraction: float, seed: int
) -> np.ndarray:
    """Returns which rows are chosen, bool (N,): whole groups, in an order drawn by the seed, until each class has its
    share.

    Args:
        group: int64 (N,).
        label: int64 (N,), −1 where there is none, which counts as a class.
        keys: group → 64-bit number that the draw goes by.
        fraction: share of the rows of each class, in (0, 1).
        seed: of the order.
    """
    members: dict[int, list[int]] = {}
    for row, number in enumerate(group.tolist()):
        members.setdefault(number, []).append(row)
    numbers = list(members)
    draw = keyed_uniform(np.array([keys[n] for n in numbers], dtype=np.uint64), 1, seed, Stream.VALIDATION_ROWS)[:, 0]
    counts = {number: Counter(label[rows].tolist()) for number, rows in members.items()}
    groups_of = Counter(name for found in counts.values() for name in found)
    left = Counter(label.tolist())  # rows of each class that stay
    wanted = {name: max(1, round(fraction * rows)) if groups_of[name] > 1 else 0 for name, rows in left.items()}
    chosen = np.zeros(len(label), dtype=bool)
    for place in np.argsort(draw, kind="stable").tolist():
        found = counts[numbers[place]]
        gain = sum(abs(wanted[name]) - abs(wanted[name] - rows) for name, rows in found.items())
        if gain <= 0 or any(left[name] <= rows for name, rows in found.items()):
            continue
        for name, rows in found.items():
            wanted[name] -= rows
            left[name] -= rows
        chosen[members[numbers[place]]] = True
    return chosen
