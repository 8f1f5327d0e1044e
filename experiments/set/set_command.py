"""``synfer set merge|split|enlarge|export|push``: finished sets, joined, cut, larger, in other forms, on the Hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from experiments.command_line.commands import called_as
from experiments.command_line.errors import exit_code_of
from experiments.command_line.one_line_parser import OneLineParser
from experiments.set.enlarge import add_options, enlarge


def main(args: Sequence[str] | None = None) -> int:
    """Runs one of the five.

    Args:
        args: words after the command; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line on stderr; then nothing has been written.
    """
    options = _parser().parse_args(args)
    return exit_code_of(partial(options.run, options))


def _merge(options: argparse.Namespace) -> None:
    from datamodules.synthetic.merged_set import merge_sets

    faces = merge_sets(options.sets, options.out)
    print(f"{options.out}: {faces} faces of {len(options.sets)} sets")


def _split(options: argparse.Namespace) -> None:
    from datamodules.synthetic.split_set import split_by_count, split_by_expression

    if options.counts:
        parts = split_by_count(options.set, options.counts, options.out)
    else:
        parts = split_by_expression(options.set, options.out)
    for name, faces in parts.items():
        print(f"{options.out / name}: {faces} faces")


def _export(options: argparse.Namespace) -> None:
    from datamodules.synthetic.set_exports import EXPORTS

    counts = EXPORTS[options.to](options.set, options.out, options.label)
    print(f"{options.out}: {counts.total()} faces that were kept ({_in_words(counts)})")


def _push(options: argparse.Namespace) -> None:
    from datamodules.synthetic.set_upload import push_to_hub

    print(push_to_hub(options.set, options.repo, options.public))


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=called_as("set", sys.argv[0]),
        description="What is done with finished synthetic sets, each the folder that holds data/ and MANIFEST. One "
        "shard after the other is read: a million faces take no more memory than a thousand.",
        allow_abbrev=False,
    )
    tasks = parser.add_subparsers(required=True, metavar="merge|split|enlarge|export|push")
    new = "folder to write to: a new or an empty one"

    merge = tasks.add_parser("merge", help="several sets as one", allow_abbrev=False)
    merge.add_argument("sets", nargs="+", type=Path, help="at least two sets")
    merge.add_argument("--out", type=Path, required=True, help=new)
    merge.set_defaults(run=_merge)

    split = tasks.add_parser("split", help="one set as several", allow_abbrev=False)
    split.add_argument("set", type=Path)
    how = split.add_mutually_exclusive_group(required=True)
    how.add_argument("--counts", nargs="+", type=int, help="faces of each part; the rest is one part more")
    how.add_argument("--by_expression", action="store_true", help="a set of each intended expression")
    split.add_argument("--out", type=Path, required=True, help=new)
    split.set_defaults(run=_split)

    larger = tasks.add_parser("enlarge", help="the same faces, super-resolved", allow_abbrev=False)
    add_options(larger)
    larger.set_defaults(run=enlarge)

    export = tasks.add_parser("export", help="the kept faces for other loaders", allow_abbrev=False)
    export.add_argument("set", type=Path)
    export.add_argument(
        "--to", choices=["webdataset", "folder"], required=True, help="tar archives, or folders by name"
    )
    export.add_argument(
        "--label",
        choices=["final", "intended"],
        default="final",
        help="the expression after the vote, or the one that was asked (default: final)",
    )
    export.add_argument("--out", type=Path, required=True, help=new)
    export.set_defaults(run=_export)

    push = tasks.add_parser("push", help="a data set of the Hugging Face Hub", allow_abbrev=False)
    push.add_argument("set", type=Path)
    push.add_argument("repo", help="user/name; the token is HF_TOKEN, or that of hf auth login")
    push.add_argument("--public", action="store_true", help="for everyone to see (default: private)")
    push.set_defaults(run=_push)
    return parser


if __name__ == "__main__":
    sys.exit(main())
