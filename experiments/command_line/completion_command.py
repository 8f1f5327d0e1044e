"""``synfer completion bash | zsh``: prints what the shell needs to complete commands, options, presets and files.

The script holds all words, so that completing one starts no Python; it is written anew after an update.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from experiments.command_line.commands import SYNFER, TRAINING, Command, available, called_as
from experiments.command_line.early_check import settings_of_class
from experiments.command_line.errors import report
from experiments.command_line.lean_imports import defer_what_is_not_used
from experiments.command_line.presets import presets
from experiments.command_line.project import PROJECT

SHELLS = ("bash", "zsh")
_FOLDERS, _FILES = ("--run_dir", "--data"), ("--config", "-c", "--ckpt_path")
_CLASSES = {"--model": "lightning_modules", "--data.reader": "datamodules.readers"}
"""Option that takes a class of ours by its name → package that says under ``__all__`` which there are."""


def main(args: Sequence[str] | None = None) -> int:
    """Prints a completion script.

    Args:
        args: words after the command; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line where shtab is not installed.
    """
    options = _parser().parse_args(args)
    try:
        import shtab
    except ImportError:
        report("completion: found no package shtab, expected it to be installed: pip install shtab")
        return 2
    print(shtab.complete(all_words(), options.shell))
    return 0


def all_words() -> argparse.ArgumentParser:
    """Returns a parser with every command and every option; it is read by shtab, not parsed with."""
    defer_what_is_not_used()
    from experiments.command_line.train_command import make_parser

    whole = argparse.ArgumentParser(prog=SYNFER, allow_abbrev=False)
    commands = whole.add_subparsers()
    children: dict[str, Any] = {}
    for action in make_parser()._actions:
        children |= action.choices if isinstance(action.choices, dict) else {}
    more = [
        *_of_classes("lightning_modules", "--model"),
        *_of_classes("datamodules/readers", "--data.reader.init_args"),
    ]
    for name, command in available().items():
        if name in TRAINING:
            child = commands.add_parser(name, help=command.summary, allow_abbrev=False)
            _add_options(child, [*children[name]._option_string_actions, *more])
        else:
            commands.add_parser(name, help=command.summary, parents=_parents(command), add_help=False)
    return whole


def _parents(command: Command) -> list[argparse.ArgumentParser]:
    """Returns the parser of a command that says what it is by a function ``_parser``, as all of ours do."""
    make = getattr(import_module(command.target.partition(":")[0]), "_parser", None)
    return [] if make is None else [make()]


def _add_options(parser: argparse.ArgumentParser, options: Sequence[str]) -> None:
    import shtab

    chosen: dict[str, list[str]] = {"--preset": list(presets())}
    for option, package in _CLASSES.items():
        chosen[option] = sorted(set(import_module(package).__all__) - {"Reader"})
    for option in dict.fromkeys(["--preset", *options]):
        if option in ("-h", "--help") or option.endswith("+"):
            continue
        action: Any = parser.add_argument(option, choices=chosen.get(option), help="")
        if option in _FILES:
            action.complete = shtab.FILE
        elif option in _FOLDERS:
            action.complete = shtab.DIRECTORY


def _of_classes(folder: str, prefix: str) -> Iterator[str]:
    """Yields the options that the classes of a folder take, all of them, for the command line may name any."""
    for path in sorted((PROJECT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and _is_of(node):
                yield from (f"{prefix}.{name}" for name in settings_of_class(node))


def _is_of(node: ast.ClassDef) -> bool:
    """Whether a class can be given to the option: a module or a reader, by the name of what it is made of."""
    bases = [ast.unparse(base) for base in node.bases]
    return any(base.endswith(("Module", "Reader", "SynthesiserFile", "LightningModule")) for base in bases)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=called_as("completion", sys.argv[0]),
        description="Prints a script that completes the words of synfer. bash: synfer completion bash > "
        "~/.local/share/bash-completion/completions/synfer; zsh: synfer completion zsh > a folder of $fpath/_synfer.",
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser
