"""``synfer blend RUN RUN … --out FOLDER``: one classifier from the weights of several."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments.command_line.commands import called_as
from experiments.command_line.errors import exit_code_of
from synfer.foundation.new_folder import check_new_folder


def main(args: Sequence[str] | None = None) -> int:
    """Blends classifiers and writes the result.

    Args:
        args: words after the command; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line on stderr where they cannot be blended; then nothing has been written.
    """
    options = _parser().parse_args(args)
    return exit_code_of(partial(_blend, options))


def _blend(options: argparse.Namespace) -> None:
    out: Path = options.out
    check_new_folder(out)
    from lightning_modules.blending import blend_classifiers  # seconds to import

    blend_classifiers(options.runs, options.shares).save_trained(out)
    print(f"{out}: a blend of {len(options.runs)} classifiers (--ckpt_path {out}, --model.backbone_weights {out})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=called_as("blend", sys.argv[0]),
        description="Write a classifier whose weights are the mean of others', such as a run on real faces and one on "
        "a mixture that began alike. validate, test, predict and label take its folder, and fit as a start.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="runs, checkpoints or folders of weights, at least two")
    parser.add_argument(
        "--shares", nargs="+", type=float, default=None, help="share of each in the mean (default: alike)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to: a new or an empty one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
