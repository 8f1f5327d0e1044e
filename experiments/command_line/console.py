"""``synfer COMMAND …``: finds the command, and imports nothing else before."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from experiments.command_line.commands import COMMANDS, SYNFER, TRAINING, available
from experiments.command_line.errors import report
from synfer.foundation.file_reading import did_you_mean
from synfer.foundation.late_import import imported_late

_OPTIONS = (
    ("--preset NAME", "settings by name", "--run_dir FOLDER", "where the run goes"),
    ("--data FOLDER", "{train,val}/<expression>/*", "--ckpt_path RUN", "run folder, or file"),
    ("--config FILE", "settings; the later wins", "--seed_everything N", "seed"),
    ("--data.batch_size N", "faces in a step, per rank", "--trainer.max_epochs N", "length of the run"),
    ("--data.synthetic_ratio R", "made faces in a batch", "--trainer.devices N", "GPUs, or processes"),
)


def main(args: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: words after ``synfer``; None = ``sys.argv[1:]``. Training on several devices needs None: every rank that
            Lightning starts runs ``sys.argv`` again.

    Returns:
        Exit code; 2 after one line about a command that is not there.
    """
    words = sys.argv[1:] if args is None else list(args)
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_screen())
        return 0
    if words[0] == "--version":
        print(_version())
        return 0
    name = words[0]
    found = available()
    if name not in found:
        report(_no_such_command(name, list(found)))
        return 2
    run = imported_late(found[name].target)
    if name in TRAINING:  # the name is the first word of train.py as well
        run(None if args is None else words)
        return 0
    return int(run(words[1:]) or 0)


def help_screen() -> str:
    """Returns all commands and the options that matter, on one screen of 24 lines and 100 columns."""
    commands = [f"  {name:<11}{command.summary}" for name, command in available().items()]
    options = [f"  {first:<26}{what:<28}{second:<24}{why}".rstrip() for first, what, second, why in _OPTIONS]
    return "\n".join(
        [
            "usage: synfer COMMAND [options]",
            *commands,
            "ten options of fit, validate, test and predict:",
            *options,
            "all options: synfer COMMAND --help, docs/configs.md; a first run: synfer fit --preset demo",
        ]
    )


def _no_such_command(name: str, known: list[str]) -> str:
    expected = f"expected one of {', '.join(known)}"
    if name in COMMANDS:
        return f"{SYNFER} {name}: not part of this installation, {expected}"
    if name.startswith("-"):
        return f"found the option '{name}' before a command, {expected} as the first word"
    return f"found no command '{name}', {expected}{did_you_mean(name, known)}"


def _version() -> str:
    try:
        return f"{SYNFER} {version(SYNFER)}"
    except PackageNotFoundError:
        return f"{SYNFER} (not installed)"
