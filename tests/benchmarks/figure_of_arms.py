r"""The figure of a study of arms: differences to one of them, paired by seed, with 95 % t-intervals.

    python tests/benchmarks/figure_of_arms.py docs/results/long_tail.csv --against "logit adjustment" \
        --metric mean_class_accuracy --name long-tail --out assets

The table has the columns ``arm``, ``seed``, the metric, and perhaps ``data``, by which it is divided into parts. Arms
of one seed have a dot and no interval. Prints one JSON line with the differences.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import matplotlib

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.compare.drawing import LABEL, LIGHT, LINE, SERIES, STYLE, bars_of, draw_seeds, finish, new_figure
from experiments.compare.intervals import Interval, t_interval


def differences(path: Path, metric: str, against: str) -> dict[str, dict[str, Interval]]:
    """Returns part of the data → arm → difference to one arm, in the order of the table.

    Raises:
        ValueError: a column is missing, an arm has a seed twice, or the one compared with is not there.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        missing = [name for name in ("arm", "seed", metric) if name not in (rows.fieldnames or [])]
        if missing:
            raise ValueError(f"'{path}': found no column '{missing[0]}', expected arm, seed and {metric}")
        for row in rows:
            seeds = found.setdefault(row.get("data") or "", {}).setdefault(row["arm"], {})
            if row["seed"] in seeds:
                raise ValueError(f"'{path}': found seed {row['seed']} of '{row['arm']}' twice, expected once")
            seeds[row["seed"]] = float(row[metric])
    pairs: dict[str, dict[str, Interval]] = {}
    for part, arms in found.items():
        if against not in arms:
            raise ValueError(f"'{path}': found no arm '{against}'{f' of {part}' if part else ''}, expected one")
        own = arms[against]
        pairs[part] = {
            arm: t_interval([value - own[seed] for seed, value in seeds.items() if seed in own])
            for arm, seeds in arms.items()
            if arm != against and set(seeds) & set(own)
        }
    return pairs


def draw(pairs: dict[str, dict[str, Interval]], metric: str, against: str, name: str, folder: Path) -> Path:
    """Writes the figure and returns its path."""
    count = sum(map(len, pairs.values())) + 1.5 * len(pairs)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(0.8 + 2.3 * LINE * count)
        y = 0.0
        for part, arms in pairs.items():
            if part:
                y += 2.2
                axes.text(0.0, y, part, transform=axes.get_yaxis_transform(), va="bottom", weight="bold")
            for arm, interval in arms.items():
                y += 2.3
                colour = SERIES[0] if interval.excludes_zero else LIGHT["muted"]
                bars = None if interval.half_width is None else bars_of([interval], 1)
                axes.errorbar(interval.mean, y, xerr=bars, fmt="o", color=colour, markersize=6, elinewidth=2, capsize=3)
                draw_seeds(axes, list(interval.values), [y + 0.5] * interval.n, colour)
                axes.text(0.0, y - 0.5, arm, transform=axes.get_yaxis_transform(), va="bottom", fontsize=9, **LABEL)
        axes.axvline(0, color=LIGHT["ink"], linewidth=1)
        axes.set(ylim=(y + 1, 0), yticks=[], xlabel=f"{metric.replace('_', ' ')} − that of {against} (points)")
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        finish(figure, name, "", "", folder)
    return folder / f"{name}.png"


def _rounded(interval: Interval) -> list[float | None]:
    """Returns mean and half width, in points."""
    return [round(interval.mean, 1), None if interval.half_width is None else round(interval.half_width, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--against", required=True, help="arm that the others are compared with")
    parser.add_argument("--metric", required=True, help="column, in points")
    parser.add_argument("--name", required=True, help="of the picture")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the picture")
    args = parser.parse_args()
    pairs = differences(args.table, args.metric, args.against)
    path = draw(pairs, args.metric, args.against, args.name, args.out)
    said = {part: {arm: _rounded(interval) for arm, interval in arms.items()} for part, arms in pairs.items()}
    print(json.dumps({"benchmark": "figure_of_arms", "picture": str(path), "differences": said}, ensure_ascii=False))


if __name__ == "__main__":
    main()
