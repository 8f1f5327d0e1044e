"""What each program says of a command line, without running it. All that knows where a parser lives is in this file."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import inspect
import io
import pkgutil
import re
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from experiments.command_line.commands import TRAINING, available
from experiments.command_line.one_line_parser import OneLineParser
from experiments.command_line.train_command import _as_command_line, _command_line, _ParsedOnly
from experiments.compare import compare_command
from experiments.export import export_command
from experiments.label import label_command
from experiments.preview import preview_command
from experiments.sample import sample_command
from experiments.score import score_command
from experiments.serve import serve_command
from experiments.sweep import sweep_command
from experiments.sweep.sweep_error import SweepError
from experiments.sweep.sweep_file import read_sweep_file
from experiments.sweep.sweep_run import plan_runs
from synfer.foundation.late_import import imported_late
from tests.docs.documented_commands import Command
from tests.docs.pages import PROJECT

_STORED = ("configs/data/drawn.yaml", "configs/classifier/tiny.yaml")
"""What stands for the config.yaml of a run, which holds all settings of it."""
_CLASSES = ("--preset", "--model", "--data.reader", "--data.synthetic_reader")
"""Options that choose a class, or files, and with it which other options there are."""


class _Parsed(Exception):
    """A parser has accepted its command line."""


def complaints(commands: Sequence[Command]) -> list[str]:
    """Returns a line for each command that its program would refuse: page, line, and the program's own words."""
    runs: list[Command] = []
    found = []
    for command in dict.fromkeys(commands):
        said, more = _look_at(command)
        runs += more
        if said:
            found.append(f"{command.place}: {said}")
    return found + _of_train(runs)


def _look_at(command: Command) -> tuple[str | None, list[Command]]:
    """Returns what a program says of a command, and the train.py commands that it stands for."""
    program, *words = command.words
    if program == "synfer" or (program, words[:2]) == ("python", ["-m", "synfer"]):
        return _of_synfer(command, words if program == "synfer" else words[2:])
    if program == "torchrun" and "synfer" in words:
        return _of_synfer(command, words[words.index("synfer") + 1 :])
    if program == "torchrun" and "train.py" in words:
        return None, [_of_words(command, words[words.index("train.py") + 1 :])]
    if program == "sbatch":
        return _of_sbatch(command, words)
    if program == "srun":
        started = [place for place, word in enumerate(words) if word in ("python", "synfer", "torchrun")]
        return _look_at(replace(command, words=tuple(words[started[0] :]))) if started else ("srun starts nothing", [])
    if program == "wandb":
        return _of_sweep(command, words[1:]) if words[0] == "sweep" else (None, [])
    if program == "python" and words[0] == "train.py":
        return None, [_of_words(command, words[1:])]
    if program == "python" and words[0] == "sweep.py":
        refusal = _through_argparse(lambda: sweep_command.main(words[1:]), "sweep.py", words[1:])
        return (refusal, []) if refusal else _of_sweep(command, words[1:])
    if program == "python" and words[0] == "compare.py":
        return _through_argparse(lambda: compare_command.main(words[1:]), "compare.py", words[1:]), []
    if program == "python" and words[0] == "export.py":
        return _through_argparse(lambda: export_command.main(words[1:]), "export.py", words[1:]), []
    if program == "python" and words[0] == "label.py":
        return _through_argparse(lambda: label_command.main(words[1:]), "label.py", words[1:]), []
    if program == "python" and words[0] == "sample.py":
        return _through_argparse(lambda: sample_command.main(words[1:]), "sample.py", words[1:]), []
    if program == "python" and words[0] == "serve.py":
        return _through_argparse(lambda: serve_command.main(words[1:]), "serve.py", words[1:]), []
    if program == "python" and words[0] == "preview.py":
        return _of_data(command, preview_command._parser(), words[1:])
    others: dict[str, Callable[[list[str]], str | None]] = {
        "python": _of_python,
        "make": _of_make,
        "pytest": _of_pytest,
        "pip": _of_pip,
        "git": lambda _: None,
        "scancel": lambda _: None,
        "scontrol": lambda _: None,
        "pre-commit": lambda _: None,
    }
    if program not in others:
        return f"no parser is known for '{program}', expected one of {', '.join(others)}, torchrun, wandb", []
    return others[program](words), []


def _of_data(
    command: Command, parser: ArgumentParser | OneLineParser, words: Sequence[str]
) -> tuple[str | None, list[Command]]:
    """Returns what a program says whose further words are those of train.py that name data."""
    refusal = _refusal(lambda: parser.parse_known_args(list(words)))
    if refusal:
        return refusal, []
    rest = parser.parse_known_args(list(words))[1]
    return None, [_of_words(command, ["fit", f"--config={_STORED[1]}", *rest])]


def _of_sbatch(command: Command, words: Sequence[str]) -> tuple[str | None, list[Command]]:
    """Returns whether the batch file is there, and the training that the words after it are options of."""
    files = [place for place, word in enumerate(words) if word.endswith(".sbatch")]
    if not files or not (PROJECT / words[files[0]]).is_file():
        return f"found no batch file in '{' '.join(words)}', expected one of examples/slurm", []
    return None, [_of_words(command, ["fit", *words[files[0] + 1 :]])]


def _of_synfer(command: Command, words: Sequence[str]) -> tuple[str | None, list[Command]]:
    """Returns what the command says that the first word names."""
    name = words[0] if words else "--help"
    if name.startswith("-"):
        return (None if name in ("--help", "--version") else f"synfer has no option '{name}'"), []
    if name not in available():
        return f"synfer has no command '{name}'", []
    if name in TRAINING:
        return None, [_of_words(command, words)]
    if name == "score":
        return _of_data(command, score_command._parser(), words[1:])
    if (PROJECT / f"{name}.py").is_file():
        return _look_at(Command(command.page, command.line, ("python", f"{name}.py", *words[1:])))
    main = imported_late(available()[name].target)
    return _through_argparse(lambda: main(list(words[1:])), f"synfer {name}", list(words[1:])), []


def known_keys() -> set[str]:
    """Returns the names of all options of train.py, those of every module in the project among them."""
    parser = _train_parser()
    keys: set[str] = set()
    for action in parser._actions:
        if isinstance(action.choices, dict):  # of the subcommands
            children: list[Any] = list(action.choices.values())
            options = [option for parser_of_one in children for option in parser_of_one._option_string_actions]
            keys |= {option.removeprefix("--").rstrip("+") for option in options}
    for found in pkgutil.iter_modules([str(PROJECT / "lightning_modules")]):
        module = importlib.import_module(f"lightning_modules.{found.name}")
        kinds = [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, LightningModule)]
        keys |= {f"model.{parameter}" for kind in kinds for parameter in inspect.signature(kind).parameters}
    return keys


# ------------------------------------------------------------------------------------------------ train.py


@cache
def _train_parser() -> ArgumentParser:
    """Returns the parser of train.py, made once: making it takes seconds."""
    words = ["fit", *(f"--config={PROJECT / name}" for name in _STORED)]
    with _as_command_line(words):
        return _command_line(_ParsedOnly).parser


def _of_words(command: Command, words: Sequence[str]) -> Command:
    """Returns the command of train.py; the config of a run that does not exist here becomes that of another."""
    known: list[str] = []
    for word in words:
        if known and known[-1] == "--data" and "{" not in word:  # a folder of the reader's, which does not exist here
            known[-1:] = ["--data.reader=datamodules.readers.ImageFolderReader", f"--data.reader.init_args.root={word}"]
        elif re.fullmatch(r"(--config=)?runs/[\w-]+/config\.yaml", word) is None:
            known.append(word)
        elif word.startswith("--config="):
            known += [f"--config={name}" for name in _STORED]
        else:
            known += [_STORED[0], "--config", _STORED[1]]
    return Command(command.page, command.line, tuple(known))


def _of_train(commands: Sequence[Command]) -> list[str]:
    """Returns what train.py says; commands with the same files and classes are parsed as one, apart if it refuses."""
    groups: dict[tuple[str, ...], list[Command]] = {}
    for command in commands:
        options = _options(command.words[1:])
        settled = [word for option in options if option[0] in ("--config", *_CLASSES) for word in option]
        groups.setdefault((*command.words[:1], *settled), []).append(command)
    found = []
    for common, members in groups.items():
        distinct = dict.fromkeys(option for member in members for option in _options(member.words[1:]))
        rest = [word for option in distinct if option[0] not in ("--config", *_CLASSES) for word in option]
        if _refusal_of_train([*common, *rest]) is not None:
            said = {member.place: _refusal_of_train(list(member.words)) for member in members}
            found += [f"{place}: {line}" for place, line in said.items() if line]
    return found


def _options(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the options of a command line, each with its value: "--key=value" and "--key value" alike."""
    found: list[tuple[str, ...]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found.append((name, value) if equals else (name,))
        elif found:
            found[-1] += (word,)
        else:
            found.append((word,))
    return found


def _refusal_of_train(words: list[str]) -> str | None:
    with _as_command_line([word for word in words if word != "--print_config"]):
        return _refusal(lambda: _train_parser().parse_args(sys.argv[1:]))


# ------------------------------------------------------------------------------------------------ other programs


def _of_sweep(command: Command, words: Sequence[str]) -> tuple[str | None, list[Command]]:
    """Returns the commands of the runs of a sweep."""
    extra = list(words[words.index("--") + 1 :]) if "--" in words else []
    path = Path(words[0])
    if not path.is_file():
        return f"found no sweep file '{path}'", []
    try:
        runs = plan_runs(read_sweep_file(path), PROJECT / "runs" / "planned", extra)
    except SweepError as error:
        return str(error), []
    return None, [_of_words(command, run.command()[len(run.launcher) :]) for run in runs]


def _of_python(words: list[str]) -> str | None:
    if words[0] == "-c":
        return missing_imports(words[1])
    if words[:2] == ["-m", "pytest"]:
        return _of_pytest(words[2:])
    if words[0] == "-m":
        path = PROJECT.joinpath(*words[1].split("."))
        name, words = words[1], [str(path / "__main__.py" if path.is_dir() else path.with_suffix(".py")), *words[2:]]
    else:
        name = words[0]
    if not Path(words[0]).is_file():
        return f"found no program '{name}'"
    if "parse_args" not in Path(words[0]).read_text(encoding="utf-8"):
        return f"'{name}' reads no command line, so it would run"
    return _through_argparse(lambda: runpy.run_path(words[0], run_name="__main__"), name, words[1:])


def _of_make(words: list[str]) -> str | None:
    targets = set(re.findall(r"^([\w./-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    unknown = [word for word in words if word not in targets and "=" not in word and not word.startswith("-")]
    return f"found no target '{unknown[0]}' in the Makefile" if unknown else None


def _of_pytest(words: list[str]) -> str | None:
    missing = [word for word in words if word.startswith("tests/") and not Path(word.partition("::")[0]).exists()]
    return f"found no tests '{missing[0]}'" if missing else None


def _of_pip(words: list[str]) -> str | None:
    declared = (PROJECT / "pyproject.toml").read_text()
    for extra in re.findall(r"(?:synfer|\.)\[([\w,]+)\]", " ".join(words)):
        for name in extra.split(","):
            if not re.search(rf"^{name} = \[", declared, flags=re.MULTILINE):
                return f"found no extra '{name}' in pyproject.toml"
    return None


def missing_imports(source: str) -> str | None:
    """Returns a line about Python that cannot be read, or that imports what is not there; None where all is well."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return f"no Python: {error}"
    for node in ast.walk(tree):
        names: list[tuple[str, str | None]] = []
        if isinstance(node, ast.ImportFrom):
            names = [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [(alias.name, None) for alias in node.names]
        for module, name in names:
            try:
                if name is not None and not hasattr(importlib.import_module(module), name):
                    return f"found no '{name}' in {module}"
                importlib.import_module(module)
            except ImportError as error:
                return str(error)
    return None


def _through_argparse(program: Callable[[], Any], name: str, words: Sequence[str]) -> str | None:
    """Returns what a program with a parser of the standard library says; it is stopped once it has parsed."""
    parse_args, argv, on_sigterm = argparse.ArgumentParser.parse_args, sys.argv, signal.getsignal(signal.SIGTERM)

    def parse_only(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        parse_args(self, *args, **kwargs)
        raise _Parsed

    sys.argv = [name, *words]
    argparse.ArgumentParser.parse_args = parse_only  # type: ignore[method-assign]
    try:
        return _refusal(program)
    finally:
        argparse.ArgumentParser.parse_args = parse_args  # type: ignore[method-assign]
        sys.argv = argv
        signal.signal(signal.SIGTERM, on_sigterm)  # a program takes it over before it parses


def _refusal(parse: Callable[[], Any]) -> str | None:
    """Returns the last line that a parser prints before it gives up; None where it accepts."""
    printed, complained = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
            code = parse()
    except _Parsed:
        return None
    except SystemExit as stopped:
        code = stopped.code
    if not isinstance(code, int) or code == 0:  # a configuration, or the help
        return None
    return (complained.getvalue().strip().splitlines() or [f"ends with {code}"])[-1]
