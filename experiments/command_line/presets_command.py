"""``synfer presets``: what there is; ``synfer presets NAME > mine.yaml``: a copy with its comments, to be changed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from experiments.command_line.commands import called_as
from experiments.command_line.errors import report
from experiments.command_line.presets import preset_path, presets, summary_of


def main(args: Sequence[str] | None = None) -> int:
    """Lists the presets, or prints the text of one.

    Args:
        args: words after the command; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line about a preset that is not there.
    """
    options = _parser().parse_args(args)
    if options.name is None:
        found = presets()
        width = max(map(len, found), default=0)
        for name, path in found.items():
            print(f"{name:<{width}}  {summary_of(path)}")
        return 0
    try:
        print(preset_path(options.name).read_text(encoding="utf-8"), end="")
    except ValueError as error:
        report(str(error))
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=called_as("presets", sys.argv[0]),
        description="Lists the presets of --preset, or prints one with its comments: presets NAME > mine.yaml, then "
        "--config mine.yaml.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", help="the preset to print (default: list all)")
    return parser
