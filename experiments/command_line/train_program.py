"""``train.py`` and ``synfer fit | validate | test | predict``: what can be told at once is, before Lightning loads."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from experiments.cluster.launch import find_launch
from experiments.command_line.early_check import misspelt_key
from experiments.command_line.errors import debugging, report
from experiments.command_line.lean_imports import defer_what_is_not_used

if TYPE_CHECKING:
    from experiments.command_line.cli import SynferCLI


def main(args: list[str] | None = None) -> SynferCLI:
    """Runs one command; as :func:`experiments.command_line.train_command.main`.

    Raises:
        SystemExit: 2 after a line about a misspelt key, and whatever that function raises.
    """
    words = sys.argv[1:] if args is None else args
    line = None if debugging() else misspelt_key(words)
    if line is not None:
        report(line)
        raise SystemExit(2)
    with contextlib.suppress(ValueError):  # told once it can be told in one line
        if find_launch(words=words).ranks_meet:
            # Where a rank has gone torch's store prints forty lines; ours is one.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    defer_what_is_not_used()
    from experiments.command_line import train_command

    return train_command.main(args)
