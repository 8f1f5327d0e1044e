"""What sets of faces are worth: ``synfer score SET… --judge RUN --config configs/data/fer2013.yaml``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.command_line.commands import called_as
from experiments.command_line.device import device_named
from experiments.command_line.early_check import misspelt_key
from experiments.command_line.errors import exit_code_of
from experiments.command_line.one_line_parser import OneLineParser, whole_number

_COLUMNS = {
    "faces": "faces",
    "judge_accuracy": "judge",
    "judge_on_real_accuracy": "on real",
    "frechet": "Fréchet",
    "kid": "KID",
    "improved_precision": "precision",
    "improved_recall": "recall",
    "near_copies": "copies",
    "near_copies_real": "of real",
    "near_copies_of_others": "of others",
}
"""Figure → its name in the table; figures measured in features carry the extractor's name behind."""

_SHARES = ("judge_accuracy", "judge_on_real_accuracy", "near_copies", "near_copies_real", "near_copies_of_others")


def main(args: Sequence[str] | None = None) -> int:
    """Scores sets of faces against the real faces of a test split.

    Args:
        args: command line without the program's name; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line on stderr.

    Raises:
        SystemExit: 2 after one line about an option.
    """
    options, words = _parser().parse_known_args(args)
    return exit_code_of(partial(_score, options, words))


def _score(options: argparse.Namespace, words: list[str]) -> None:
    if options.faces < 2:
        raise ValueError(f"--faces: found {options.faces}, expected at least 2")
    if options.out is not None and options.out.is_dir():
        raise ValueError(f"--out '{options.out}': found a folder, expected the name of a JSON file")
    misspelt = misspelt_key(["fit", *words])
    if misspelt is not None:
        raise ValueError(misspelt)
    from callbacks.scoring_networks import ScoringFiles
    from experiments.preview.data_alone import data_of
    from experiments.score.set_score import SetScore
    from synfer.foundation.json_file import write_json

    files = ScoringFiles(options.judge, options.features, options.features_weights, options.au_estimator)
    nearest = None if options.nearest_training < 0 else options.nearest_training
    score = SetScore(data_of(words, "score"), files, options.faces, nearest, options.seed, device_named(options.device))
    found: dict[str, Any] = {}
    for one in options.sets:
        found[one] = score.of(one)
        print(one, flush=True)
        print(_in_words(found[one]), flush=True)
    if options.out is not None:
        write_json(options.out, {"seed": options.seed, "judge": options.judge, "sets": found})
        print(f"all figures: {options.out}")


def _in_words(figures: Mapping[str, Any]) -> str:
    """Returns the figures that a set is compared by, two lines."""
    shown = []
    for key, name in _COLUMNS.items():
        own = next((figures[k] for k in figures if k == key or k.startswith(f"{key}/")), math.nan)
        if isinstance(own, float) and math.isnan(own):
            continue
        shown.append((name, f"{own:.1%}" if key in _SHARES else f"{own:,}" if key == "faces" else f"{own:.3f}"))
    widths = [max(len(name), len(value)) for name, value in shown]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*shown, strict=True)
    ]
    return "\n".join(f"  {line}" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=called_as("score", sys.argv[0]),
        description="Say what sets of made faces are worth beside the real faces of a test split: in which share a "
        "judge sees what was asked for, distance, variety, and near copies of training faces. All other options are "
        "those of train.py fit, and name the data.",
        epilog="for example: runs/my-set --judge runs/judge --config configs/data/ferplus_majority.yaml",
        allow_abbrev=False,
    )
    parser.add_argument(
        "sets", nargs="+", metavar="SET", help="synthetic set, run folder with one, or pictures in <expression>/"
    )
    parser.add_argument(
        "--judge", required=True, help="checkpoint or run of a classifier that neither guided nor voted"
    )
    parser.add_argument(
        "--features", help="checkpoint or timm name of the network whose features count (default: judge)"
    )
    parser.add_argument("--features_weights", help="file of weights where --features is a timm name")
    parser.add_argument("--au_estimator", help="folder of an estimator of action units: F1 of what was asked for")
    parser.add_argument("--faces", type=whole_number, default=10000, help="of larger sets so many (default: 10000)")
    parser.add_argument(
        "--nearest_training",
        type=int,
        default=0,
        help="training faces to search for the nearest in features; -1 = all (default: 0, no such search; near copies "
        "are searched in pixels, among all)",
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="of the draws (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
