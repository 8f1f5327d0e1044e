"""Runs put into groups by what was swept, and what came of each group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.compare.intervals import Interval, paired_difference, t_interval
from experiments.compare.run import Run
from experiments.compare.seeds import Seed, in_order, show_seed, unrecorded
from experiments.compare.swept_keys import (
    ABSENT,
    OFF,
    SweptKeys,
    comparable_settings,
    effective_config,
    find_swept_keys,
    resolve_key,
    short_name,
    show_values,
)
from synfer.metrics.directions import better, direction, words_of
from synfer.runs.flat_settings import LABEL_SPACE_KEY, Value
from synfer.runs.metrics_table import History

METRICS = ("val/accuracy", "test/accuracy", "test/fer_accuracy", "val/mean_class_accuracy")
"""Compared by default: the first of these that a run holds."""

RATIO = "data.synthetic_ratio"

SHARES = frozenset(
    {
        *("accuracy", "recall", "f1", "ece", "precision", "agreement"),
        *("found", "repaired", "harmed", "copies", "gain", "gap"),
    }
)
"""Words in the names of metrics that are shares in [0, 1], shown in per cent."""


@dataclass(frozen=True)
class Group:
    """Runs with the same values of the swept keys, and what came of them.

    Where runs of one seed differ in other keys (the user named the swept ones), the seed's value is their mean.

    Attributes:
        values: its value of each swept key.
        label: the same as text.
        runs: its runs, by seed.
        last: seed → metric at the end of the run.
        best: seed → the best of the metric over the run; runs that logged no history are missing.
        recall: expression → interval of its recall at the end; {} where the runs hold none.
        best_of_run: run name → the best of its metric.
        bounds: least and greatest possible value of the metric; None = any number.
    """

    values: tuple[Value, ...]
    label: str
    runs: tuple[Run, ...]
    last: Mapping[Seed, float]
    best: Mapping[Seed, float]
    recall: Mapping[str, Interval] = field(default_factory=dict)
    best_of_run: Mapping[str, float] = field(default_factory=dict)
    bounds: tuple[float, float] | None = None

    @property
    def seeds(self) -> tuple[Seed, ...]:
        """Seeds of its runs."""
        return tuple(self.last)

    @property
    def last_interval(self) -> Interval:
        """Mean over seeds of the metric at the end of a run."""
        return t_interval(list(self.last.values()), bounds=self.bounds)

    @property
    def best_interval(self) -> Interval | None:
        """The same for the best of each run; None where no run has one."""
        return t_interval(list(self.best.values()), bounds=self.bounds) if self.best else None

    @property
    def label_space(self) -> tuple[str, ...]:
        """Names of the expressions; () where unknown."""
        return self.runs[0].label_space


@dataclass(frozen=True)
class Comparison:
    """Everything that a table, a chart or a report shows.

    Attributes:
        metric: name of the metric compared.
        swept: how runs differ.
        groups: in the order of their values.
        control: group number → number of its control group; groups without one, and controls, are missing.
        difference: group number → mean difference to its control over shared seeds.
        warnings: one line each.
    """

    metric: str
    swept: SweptKeys
    groups: tuple[Group, ...]
    control: Mapping[int, int]
    difference: Mapping[int, Interval]
    warnings: tuple[str, ...]

    @property
    def num_runs(self) -> int:
        """Runs that were compared."""
        return sum(len(group.runs) for group in self.groups)

    @property
    def in_per_cent(self) -> bool:
        """Whether values are shares, to be shown in per cent."""
        return is_share(self.metric)

    @property
    def recall_sections(self) -> list[tuple[tuple[str, ...], list[int]]]:
        """(expressions, group numbers) of the groups with recalls: one section for each label space, largest first."""
        sections: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
        for number, group in enumerate(self.groups):
            if group.recall:
                sections.setdefault((group.label_space, tuple(group.recall)), []).append(number)
        found = [(names, numbers) for (_, names), numbers in sections.items()]
        return sorted(found, key=lambda section: -len(section[1]))

    @property
    def intervals(self) -> list[Interval]:
        """Every interval that is shown."""
        found = [i for group in self.groups for i in (group.last_interval, group.best_interval, *group.recall.values())]
        return [interval for interval in (*found, *self.difference.values()) if interval is not None]

    @property
    def unit(self) -> str:
        """The unit after a value, with its space; "" for none."""
        return " %" if self.in_per_cent else ""

    @property
    def factor(self) -> float:
        """What a value is multiplied by before it is shown."""
        return 100.0 if self.in_per_cent else 1.0


def is_share(metric: str) -> bool:
    """Whether a metric is a share in [0, 1]."""
    return bool(words_of(metric) & SHARES)


def bounds_of(metric: str) -> tuple[float, float] | None:
    """Returns the least and greatest possible value of a metric; None where it is no share."""
    if not is_share(metric):
        return None
    return (-1.0, 1.0) if "gain" in words_of(metric) else (0.0, 1.0)


def choose_metric(runs: Sequence[Run], wanted: str | None) -> str:
    """Returns the metric to compare: the wanted one, else the first of :data:`METRICS` that a run holds.

    Raises:
        ValueError: no run holds it.
    """
    held = {name for run in runs for name in run.last}
    for name in (wanted,) if wanted else METRICS:
        if name in held:
            return name
    similar = sorted(name for name in held if name.startswith(("val/", "test/")) and name.count("/") == 1)
    there = f"; they hold {', '.join(similar[:8])}" if similar else ""
    raise ValueError(
        f"metric '{wanted or METRICS[0]}': found in none of {len(runs)} runs, expected in at least one{there}"
    )


def compare(
    runs: Sequence[Run],
    metric: str,
    swept: Sequence[str] | None = None,
    control: Mapping[str, Value] | None = None,
) -> Comparison:
    """Groups finished runs that hold the metric by the keys they were swept over, and compares the groups.

    Args:
        runs: at least one run with the metric.
        metric: its name.
        swept: keys to group by; None = the parameters of the sweep that started all the runs, else whatever differs.
        control: settings of the control group, among the swept keys; None = synthetic ratio 0 where the ratio was
            swept, else no control. A group's control has its values of all other swept keys (or has them off). A key
            that changes along with a swept one may stand for it.

    Returns:
        The comparison; its warnings are about repeated runs and unreadable histories.

    Raises:
        ValueError: a key is unknown or was not swept, or no group has the control's settings.
    """
    configs = [effective_config(run) for run in runs]
    declared = {key for run in runs for key in run.sweep_keys} if all(run.sweep_keys for run in runs) else set()
    keys = find_swept_keys(configs, swept, sorted(declared))
    values: dict[tuple[Value, ...], list[Run]] = {}
    for run, config in zip(runs, configs, strict=True):
        values.setdefault(tuple(config.get(key, ABSENT) for key in keys.keys), []).append(run)
    shown = {key: show_values(group[position] for group in values) for position, key in enumerate(keys.keys)}
    warnings: list[str] = []
    groups = []
    for group_values in sorted(values, key=lambda group: tuple(_order(value) for value in group)):
        label = ", ".join(
            f"{short_name(key)} {shown[key][value]}" for key, value in zip(keys.keys, group_values, strict=True)
        )
        groups.append(_group(group_values, label or "all runs", values[group_values], metric, warnings))
    controls = _controls(keys, groups, control)
    if control and not controls:
        warnings.append("no group has a control: none agrees with the control's group in all other swept keys")
    differences = {}
    for number, other in controls.items():
        treated, base = groups[number].last, groups[other].last
        difference = paired_difference(treated, base, bounds=_possible_difference(metric, treated, base))
        if difference:
            differences[number] = difference
    return Comparison(metric, keys, tuple(groups), controls, differences, tuple(warnings))


def _possible_difference(
    metric: str, treated: Mapping[Seed, float], control: Mapping[Seed, float]
) -> tuple[float, float] | None:
    """Returns the least and greatest possible difference of two means; None where the metric is no share.

    Of two seeds it is what the control's own mean leaves room for: their interval is hardly ever worth more than that.
    """
    bounds = bounds_of(metric)
    if bounds is None:
        return None
    shared = [control[seed] for seed in treated if seed in control]
    if len(shared) == 2:
        return bounds[0] - sum(shared) / 2, bounds[1] - sum(shared) / 2
    return bounds[0] - bounds[1], bounds[1] - bounds[0]


def _group(values: tuple[Value, ...], label: str, runs: list[Run], metric: str, warnings: list[str]) -> Group:
    without = unrecorded()
    same: dict[tuple[Seed, frozenset[tuple[str, Value]]], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.name):
        seed = next(without) if run.repetition is None else run.repetition
        same.setdefault((seed, frozenset(comparable_settings(effective_config(run)).items())), []).append(run)
    by_seed: dict[Seed, list[Run]] = {}
    for (seed, _), found in same.items():
        by_seed.setdefault(seed, []).append(
            _latest(found, f"seed {show_seed(seed)} twice in group '{label}'", warnings)
        )
    by_seed = {seed: by_seed[seed] for seed in in_order(by_seed)}
    best: dict[str, float] = {}
    for run in (run for found in by_seed.values() for run in found):
        try:
            value = best_of(run, metric)
        except ValueError as error:
            warnings.append(str(error))
            continue
        if value is not None:
            best[run.name] = value
    return Group(
        values=values,
        label=label,
        runs=tuple(run for found in by_seed.values() for run in found),
        last=_mean_per_seed(by_seed, lambda run: run.last.get(metric)),
        best=_mean_per_seed(by_seed, lambda run: best.get(run.name)),
        recall=_recall(by_seed, metric),
        best_of_run=best,
        bounds=bounds_of(metric),
    )


def _latest(runs: Sequence[Run], said: str, warnings: list[str]) -> Run:
    """Returns the run that began last, of runs with one seed and the same settings in the order of their names.

    A run whose beginning is unknown is older than any other; of two that began together the one whose name comes last
    counts. Of copies of a run the first counts.
    """
    originals: list[Run] = []
    for run in runs:
        original = next((other for other in originals if _is_copy(run, other)), None)
        if original is None:
            originals.append(run)
        else:
            warnings.append(f"{said}: '{original.name}' counts, '{run.name}' is a copy of it and left out")
    by_name = sorted(originals, key=lambda run: (Path(run.name).name, run.name))
    counts = sorted(by_name, key=lambda run: -math.inf if run.started is None else run.started)[-1]
    for run in originals:
        if run is not counts:
            why = "comes first by name" if run.started == counts.started else "began earlier"
            warnings.append(f"{said}: '{counts.name}' counts, '{run.name}' {why} and is left out")
    return counts


def _is_copy(run: Run, other: Run) -> bool:
    """Whether two run folders hold the same training, whatever was tested there afterwards."""

    def learned(run: Run) -> dict[str, float]:
        return {name: value for name, value in run.last.items() if not name.startswith("test/")}

    return run.started == other.started and learned(run) == learned(other) and run.counts == other.counts


def _mean_per_seed(by_seed: Mapping[Seed, Sequence[Run]], value_of: Callable[[Run], float | None]) -> dict[Seed, float]:
    """Returns seed → mean over its runs: one, unless runs differ in keys that make no groups; seeds without are out."""
    means = {}
    for seed, runs in by_seed.items():
        values = [value for run in runs if (value := value_of(run)) is not None]
        if values:
            means[seed] = sum(values) / len(values)
    return means


def best_of(run: Run, metric: str) -> float | None:
    """Returns the best value of a metric that the run recorded or logged.

    None where it logged none, or where nobody knows which values are good. A recorded best that is worse than the last
    value was told by an older table of directions, and does not count.

    Raises:
        ValueError: its history cannot be read.
    """
    recorded = run.best.get(metric)
    if recorded is not None and better(metric, recorded, run.last.get(metric, recorded)) == recorded:
        return recorded
    wanted = direction(metric)
    history: History = run.history(metric) if wanted else []
    if not history:
        return None
    values = [value for _, value in history]
    return min(values) if wanted == "lower" else max(values)


def recall_prefix(metric: str) -> str:
    """Returns how the names of the recalls that belong to a metric begin.

    ``val/accuracy`` → ``val/recall/``, ``test/fer_accuracy`` → ``test/fer_recall/``.
    """
    split, _, name = metric.rpartition("/")
    stem = name.removesuffix("accuracy") if name in ("fer_accuracy", "judge_on_real_accuracy") else ""
    return f"{split}/{stem}recall/" if split else f"{stem}recall/"


def _recall(by_seed: Mapping[Seed, Sequence[Run]], metric: str) -> dict[str, Interval]:
    prefix = recall_prefix(metric)
    runs = [run for found in by_seed.values() for run in found]
    space = runs[0].label_space
    found = dict.fromkeys(key for run in runs for key in run.last if key.startswith(prefix))
    names = sorted(
        (key.removeprefix(prefix) for key in found), key=lambda n: space.index(n) if n in space else len(space)
    )

    def per_seed(name: str) -> list[float]:
        return list(_mean_per_seed(by_seed, lambda run: run.last.get(prefix + name)).values())

    return {name: t_interval(per_seed(name), bounds=(0.0, 1.0)) for name in names}


def _controls(swept: SweptKeys, groups: Sequence[Group], control: Mapping[str, Value] | None) -> dict[int, int]:
    """Returns group number → number of its control."""
    keys = swept.keys
    configs = [effective_config(group.runs[0]) for group in groups]
    if control is None:
        if not any(config.get(RATIO) == 0 for config in configs) or RATIO not in keys:
            return {}
        control = {RATIO: 0}
    settings = {}
    for name, value in control.items():
        try:
            settings[resolve_key(name, [*keys, *swept.tied])] = value
        except ValueError:
            raise ValueError(f"control '{name}': found no swept key of this name, swept: {', '.join(keys)}") from None
    candidates = [
        number
        for number, config in enumerate(configs)
        if all(config.get(key, ABSENT) == value for key, value in settings.items())
    ]
    if not candidates:
        asked = ", ".join(f"{key}={value}" for key, value in settings.items())
        there = ", ".join(dict.fromkeys(str(config.get(key, ABSENT)) for key in settings for config in configs))
        raise ValueError(f"control {asked}: found no group with it, expected one of {there}")
    asked_for = {swept.tied.get(key, key) for key in settings}
    found = {}
    for number, group in enumerate(groups):
        if number in candidates:
            continue
        same = [
            candidate
            for candidate in candidates
            if all(
                mine == theirs or (theirs == OFF and key != LABEL_SPACE_KEY)
                for key, mine, theirs in zip(keys, group.values, groups[candidate].values, strict=True)
                if key not in asked_for
            )
        ]
        if len(same) == 1:
            found[number] = same[0]
    return found


def _order(value: Value) -> tuple[int, float, str]:
    """Sorts what is off or unset first, then numbers, then names."""
    if value in (OFF, ABSENT) or value is None:
        return (0, 0.0, str(value))
    if isinstance(value, (bool, int, float)):
        return (1, float(value), "")
    return (2, 0.0, value)
