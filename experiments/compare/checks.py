"""What a reader of a comparison must know before believing it: each finding is one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from experiments.compare.groups import RATIO, Comparison
from experiments.compare.run import Run
from experiments.compare.seeds import in_order, is_recorded, show_seed
from experiments.compare.swept_keys import ABSENT, effective_config, show_values
from synfer.runs.flat_settings import Value
from synfer.runs.row_file import how_they_differ, read_rows

ROW_KEYS = (
    "data.reader",
    "data.training_fraction",
    "data.subset_seed",
    "data.drop_duplicates",
    "data.seed",
    "data.label_table",
    "data.folds",
    "data.fold",
)
"""Settings that choose which rows are trained on and with which labels, the seed apart."""

RATIO_TOLERANCE = 0.02
"""How far the counted share of synthetic samples may be from the configured one."""

NAMED = 5
"""So many names in one line, then a count."""


def usable_runs(runs: Sequence[Run], metric: str) -> tuple[list[Run], list[str]]:
    """Leaves out runs that have not finished, lack the metric, or were read from their folder already.

    Returns:
        The runs left, and one line per reason.
    """
    kept: list[Run] = []
    warnings = []
    ids: set[str | None] = {run.wandb_id for run in runs if not run.from_wandb}
    unfinished: dict[str, list[str]] = {}
    without: list[str] = []
    for run in runs:
        if run.from_wandb and run.wandb_id in ids:
            continue  # its folder was read, too
        if run.status != "finished":
            unfinished.setdefault(run.status, []).append(run.name)
        elif metric not in run.last:
            without.append(run.name)
        else:
            kept.append(run)
    for status, found in unfinished.items():
        warnings.append(f"{_count(found, 'run')} not finished ({status}), left out: {_names(found)}")
    if without:
        warnings.append(f"{_count(without, 'run')} without {metric}, left out: {_names(without)}")
    return kept, warnings


def check(comparison: Comparison) -> list[str]:
    """Returns what makes the groups less comparable than the table suggests."""
    return [
        *shortened(comparison.warnings, "such lines"),
        *_label_spaces(comparison),
        *_other_differences(comparison),
        *_tied_keys(comparison),
        *_missing_seeds(comparison),
        *_splits(comparison),
        *_counted_ratios(comparison),
    ]


def _label_spaces(comparison: Comparison) -> list[str]:
    spaces: dict[tuple[str, ...], list[str]] = {}
    for group in comparison.groups:
        for run in group.runs:
            spaces.setdefault(run.label_space, []).append(run.name)
    if len(spaces) < 2:
        return []
    said = "; ".join(
        f"{len(space) or 'unknown'} expressions in {_count(names, 'run')} ({_names(names)})"
        for space, names in sorted(spaces.items(), key=lambda item: -len(item[1]))
    )
    return [f"different label spaces, whose values cannot be compared; recalls are shown apart: {said}"]


def _other_differences(comparison: Comparison) -> list[str]:
    swept = comparison.swept
    keys = (*swept.others, *(swept.tied if swept.named else ()))
    if not keys:
        return []
    configs = [effective_config(run) for group in comparison.groups for run in group.runs]
    said = []
    for key in keys[:NAMED]:
        counts: dict[Value, int] = {}
        for config in configs:
            counts[config.get(key, ABSENT)] = counts.get(config.get(key, ABSENT), 0) + 1
        shown = show_values(counts)
        values = [f"{shown[value]} in {count}" for value, count in counts.items()]
        said.append(f"{key} ({', '.join(values[:4])}{', …' if len(values) > 4 else ''})")
    more = f" and {len(keys) - NAMED} more keys" if len(keys) > NAMED else ""
    return [f"runs differ in more than the swept keys: {'; '.join(said)}{more}"]


def _tied_keys(comparison: Comparison) -> list[str]:
    swept = comparison.swept
    if swept.named:
        return []
    by_key: dict[str, list[str]] = {}
    for key, by in swept.tied.items():
        by_key.setdefault(by, []).append(key)
    return [
        f"with {by} these settings change too, so their effects cannot be told apart: {_names(keys)}"
        for by, keys in by_key.items()
    ]


def _missing_seeds(comparison: Comparison) -> list[str]:
    every = in_order({seed for group in comparison.groups for seed in group.seeds if is_recorded(seed)})
    warnings = []
    for group in comparison.groups:
        missing = [show_seed(seed) for seed in every if seed not in group.seeds]
        if missing and is_recorded(group.seeds[0]):
            warnings.append(f"group '{group.label}' lacks seed {', '.join(missing)}, which other groups have")
    warnings = shortened(warnings, "groups that lack seeds")
    unseeded = [run.name for group in comparison.groups for run in group.runs if run.seed is None]
    if unseeded:
        warnings.append(f"{_count(unseeded, 'run')} without a recorded seed, not paired: {_names(unseeded)}")
    if comparison.groups and all(len(group.seeds) == 1 for group in comparison.groups):
        warnings.append("one seed per group: no intervals, and no difference here is more than an observation")
    return warnings


def _splits(comparison: Comparison) -> list[str]:
    """Compares hashes of the rows: of evaluation splits over all runs, of training rows where they should be equal."""
    runs = [run for group in comparison.groups for run in group.runs]
    warnings = []
    for split in ("val", "test"):
        found: dict[object, list[Run]] = {}
        for run in runs:
            if split in run.splits:
                found.setdefault(run.splits[split], []).append(run)
        if len(found) > 1:
            scored = "; these runs were scored on different rows" + _in_which_rows(found.values(), split)
            warnings.append(f"split manifests differ: {split} rows of {_versus(_named(found.values()))}{scored}")
    by_choice: dict[object, dict[object, list[Run]]] = {}
    for run in runs:
        if "train" in run.splits:
            chosen = tuple((key, value) for key, value in sorted(run.config.items()) if key.startswith(ROW_KEYS))
            by_choice.setdefault((run.seed, chosen), {}).setdefault(run.splits["train"], []).append(run)
    for found in by_choice.values():
        if len(found) > 1:
            told = f"{_versus(_named(found.values()))} (same settings){_in_which_rows(found.values(), 'train')}"
            warnings.append(f"split manifests differ: training rows of {told}")
    unknown = [run.name for run in runs if not run.splits]
    if unknown:
        warnings.append(f"{_count(unknown, 'run')} without a split manifest, not checked: {_names(unknown)}")
    return warnings


def _named(sides: Iterable[list[Run]]) -> list[list[str]]:
    return [[run.name for run in side] for side in sides]


def _in_which_rows(sides: Iterable[list[Run]], split: str) -> str:
    """Returns in which rows the first runs of the two largest sides differ; "" where a run has no file of them."""
    first, second = sorted(sides, key=len, reverse=True)[:2]
    files = [next((run.rows[split] for run in side if split in run.rows), None) for side in (first, second)]
    if files[0] is None or files[1] is None:
        return ""
    try:
        said = how_they_differ(read_rows(files[0]), read_rows(files[1]))
    except (OSError, ValueError) as error:
        return f" ({error})"
    return f": {said}" if said else ""


def _counted_ratios(comparison: Comparison) -> list[str]:
    off = []
    for group in comparison.groups:
        for run in group.runs:
            nominal, total = run.config.get(RATIO), run.counts.get("real", 0) + run.counts.get("synthetic", 0)
            if run.task == "fit" and isinstance(nominal, (int, float)) and total:
                counted = run.counts.get("synthetic", 0) / total
                if abs(counted - nominal) > RATIO_TOLERANCE:
                    off.append(f"'{run.name}' ({counted:.2f} counted, {nominal:g} configured)")
    if not off:
        return []
    more = f" and {len(off) - NAMED} more" if len(off) > NAMED else ""
    return [f"share of synthetic samples is not as configured: {', '.join(off[:NAMED])}{more}"]


def shortened(lines: Sequence[str], what: str) -> list[str]:
    """Returns the first lines, and one that counts the rest."""
    more = [f"and {len(lines) - NAMED} more {what}"] if len(lines) > NAMED else []
    return [*lines[:NAMED], *more]


def _versus(sides: Iterable[list[str]]) -> str:
    ordered = sorted(sides, key=len, reverse=True)
    said = [f"{_count(names, 'run')} ({_names(names, 2)})" for names in ordered[:3]]
    return " against ".join(said) + (f" and {len(ordered) - 3} more versions" if len(ordered) > 3 else "")


def _count(found: Sequence[str], noun: str) -> str:
    return f"{len(found)} {noun}{'s' if len(found) != 1 else ''}"


def _names(names: Sequence[str], limit: int = NAMED) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
