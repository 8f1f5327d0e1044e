"""What tests came to for each kind of face that the data set tells apart, for the report and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.compare.groups import Comparison, Group
from experiments.compare.tables import NOTHING, aligned
from synfer.runs.metric_text import number_text

_ACCURACY, _ROWS, _GAP = "test/attribute_accuracy/", "test/attribute_rows/", "test/attribute_gap/"


def scores_by_attribute(groups: Sequence[Group]) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
    """Returns the groups whose runs were tested on faces with attributes, and what each attribute's values came to.

    Each row is (attribute, value with the number of its rows, mean accuracy of each group in per cent); the last of an
    attribute is the gap between its best and its worst value, of each run, in points.
    """
    tested = [(group, _means(group)) for group in groups]
    tested = [(group, means) for group, means in tested if means]
    found = sorted({name for _, means in tested for name in means})
    attributes = dict.fromkeys(name.removeprefix(_ACCURACY).split("/")[0] for name in found if _ACCURACY in name)

    def cells(name: str) -> list[str]:
        return [number_text(round(100 * means[name], 2)) if name in means else NOTHING for _, means in tested]

    rows = []
    for attribute in attributes:
        for name in (name for name in found if name.startswith(f"{_ACCURACY}{attribute}/")):
            value = name.removeprefix(f"{_ACCURACY}{attribute}/")
            counts = sorted({round(means[of]) for _, means in tested if (of := f"{_ROWS}{attribute}/{value}") in means})
            shown = " or ".join(f"{count:,}" for count in counts[:3]) + (" …" if len(counts) > 3 else "")
            rows.append((attribute, f"{value} ({shown or NOTHING} rows)", cells(name)))
        rows.append((attribute, "gap, in points", cells(f"{_GAP}{attribute}")))
    return [group.label for group, _ in tested], rows


def attribute_table(comparison: Comparison) -> str:
    """Returns the scores by attribute for a terminal; "" where no run was tested on faces with attributes."""
    labels, scores = scores_by_attribute(comparison.groups)
    if not scores:
        return ""
    lines = [["attribute", "value", *labels], *([name, value, *cells] for name, value, cells in scores)]
    return f"test accuracy in %, by attribute\n\n{aligned(lines, 2)}"


def _means(group: Group) -> dict[str, float]:
    """Returns means over the runs of a group that were tested on faces with attributes."""
    values: dict[str, list[float]] = {}
    for run in group.runs:
        for name, value in run.last.items():
            if name.startswith((_ACCURACY, _ROWS, _GAP)):
                values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}
