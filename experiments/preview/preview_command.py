"""A look at a data set: ``python preview.py --config configs/data/raf_db.yaml --out preview``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments.command_line.commands import called_as
from experiments.command_line.early_check import misspelt_key
from experiments.command_line.errors import exit_code_of
from experiments.command_line.lean_imports import defer_what_is_not_used
from experiments.command_line.one_line_parser import OneLineParser, whole_number

SUMMARY = "summary.json"
_MOST_ROWS = 1000


def main(args: Sequence[str] | None = None) -> int:
    """Writes a picture of each split and a summary of all.

    Args:
        args: command line without the program's name; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line on stderr where nothing can be shown; a split that cannot be read is told.

    Raises:
        SystemExit: 2 after one line about an option.
    """
    options, words = _parser().parse_known_args(args)
    return exit_code_of(partial(_preview, options, words))


def _preview(options: argparse.Namespace, words: list[str]) -> None:
    if not 1 <= options.rows <= _MOST_ROWS:
        raise ValueError(f"--rows: found {options.rows}, expected 1 to {_MOST_ROWS}")
    if options.seed < 0:
        raise ValueError(f"--seed: found {options.seed}, expected at least 0")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out '{options.out}': found a file, expected a folder, or nothing yet")
    misspelt = misspelt_key(["fit", *words])
    if misspelt is not None:
        raise ValueError(misspelt)
    defer_what_is_not_used()
    from experiments.preview.data_alone import data_of  # Lightning takes seconds to import
    from experiments.preview.read_splits import read_splits
    from experiments.preview.row_cards import card_of
    from experiments.preview.split_numbers import across, as_text, chosen_rows, classes_in_words, split_numbers
    from synfer.foundation.json_file import write_json
    from synfer.pictures.sample_cards import save_sample_cards

    data = data_of(words)
    read = read_splits(data)
    splits = {name: split_numbers(table, read.said.get(name, []), options.seed) for name, table in read.tables.items()}
    numbers = {
        "data": data.reader.source(),
        "label_space": list(data.label_space),
        "splits": splits,
        "not_read": read.missing,
        "across": across(read.tables),
    }
    if (options.out / SUMMARY).is_file():  # a picture of an earlier look would pass for one of this data set
        for name in read.missing:
            (options.out / f"{name}.png").unlink(missing_ok=True)
    for name, table in read.tables.items():
        rows = chosen_rows(len(table), options.rows, options.seed)
        title = f"{data.reader.source()['reader']}, {name}: {len(rows)} of {len(table):,} rows, seed {options.seed}"
        cards = [card_of(table, row) for row in rows]
        save_sample_cards(cards, title, classes_in_words(splits[name]), options.out / f"{name}.png")
    write_json(options.out / SUMMARY, numbers)
    print(as_text(numbers, read))
    print(f"look at {', '.join(str(options.out / f'{name}.png') for name in splits)}; numbers: {options.out / SUMMARY}")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=called_as("preview", sys.argv[0]),
        description="Look at a data set before training on it: pictures of random rows of each split with their "
        "labels, and what there is to know of all rows. All other options are those of train.py fit; a model is not "
        "needed.",
        epilog="for example: --config configs/data/raf_db.yaml, or --data FOLDER with train/<expression>/*.jpg",
        allow_abbrev=False,
    )
    parser.add_argument("--rows", type=whole_number, default=16, help="rows of each split to show (default: 16)")
    parser.add_argument("--seed", type=whole_number, default=0, help="of the choice of rows (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("preview"), help="folder to write to (default: preview)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
