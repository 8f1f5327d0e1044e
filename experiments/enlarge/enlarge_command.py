"""``synfer enlarge SET --model FOLDER --out FOLDER``: a synthetic set with its faces super-resolved."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments.command_line.commands import called_as
from experiments.command_line.errors import exit_code_of
from experiments.command_line.one_line_parser import OneLineParser


def main(args: Sequence[str] | None = None) -> int:
    """Writes the larger set, or what is missing of it.

    Args:
        args: words after the command; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line on stderr where it cannot be done.
    """
    options = _parser().parse_args(args)
    return exit_code_of(partial(_enlarge, options))


def _enlarge(options: argparse.Namespace) -> None:
    source: Path = options.set
    if not source.is_dir():
        raise FileNotFoundError(
            f"enlarge: found no folder '{source}', expected a synthetic set that predict has written"
        )
    if options.image_size is not None and options.image_size < 8:
        raise ValueError(f"--image_size: found {options.image_size}, expected at least 8 pixels")
    from datamodules.synthetic.enlarged_set import Enlargement, enlarge_set  # seconds to import
    from synfer.networks.super_resolution import SuperResolution

    network = SuperResolution(options.model, options.device)
    made_by = Enlargement(network.fingerprint(), network.scale, options.image_size)
    enlarge = partial(network.enlarge, image_size=options.image_size)
    faces = enlarge_set(source, options.out, enlarge, made_by, lambda line: print(line, file=sys.stderr))
    print(f"{options.out}: {faces} faces (--data.synthetic_reader.init_args.root {options.out})")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=called_as("enlarge", sys.argv[0]),
        description="Write a synthetic set again with its faces made larger by a super-resolution network. Labels, "
        "votes and ids stay. Started again, it makes what is missing.",
        allow_abbrev=False,
    )
    parser.add_argument("set", type=Path, help="folder of a finished synthetic set")
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a super-resolution model in transformers' layout (Swin2SR)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the new set")
    parser.add_argument(
        "--image_size",
        type=int,
        default=None,
        help="side in pixels of the new faces (default: as the model makes them)",
    )
    parser.add_argument("--device", default="cpu", help="where the model works: cpu (default), cuda, cuda:1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
