"""A sweep file in W&B's own YAML format."""

from __future__ import annotations

import itertools
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.command_line.project import PROJECT, shipped
from experiments.sweep.sweep_error import SweepError
from synfer.foundation.file_reading import plain_reason

PROGRAM = "train.py"
METHODS = ("grid", "random", "bayes")
_ENV_VAR = re.compile(r"\$\{envvar:([A-Za-z0-9_]*)\}")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file says (docs.wandb.ai, "Sweep configuration structure").

    Attributes:
        path: the file.
        name: ``name`` of the sweep, or the file's name without suffix.
        method: grid, random or bayes.
        parameters: dotted key of train.py → its W&B description ({"values": […]}, {"value": …}, {"min": …, "max": …}).
        command: words of the command with W&B's macros.
        metric: name of the metric to look at; None = none given.
        project: W&B project; None = W&B's choice.
        entity: W&B account or team; None = W&B's choice.
        run_cap: bound on the number of runs; None = none.
        early_terminate: whether the file asks W&B to stop runs early.
    """

    path: Path
    name: str
    method: str
    parameters: dict[str, dict[str, Any]]
    command: tuple[str, ...]
    metric: str | None = None
    project: str | None = None
    entity: str | None = None
    run_cap: int | None = None
    early_terminate: bool = False

    def words(self, arguments: list[str]) -> tuple[list[str], list[str]]:
        """Returns the command with its macros filled in, in two parts: up to the program, and after it.

        ``${env}`` and its variables are left out, see :meth:`environment`.

        Args:
            arguments: what takes the place of ``${args}``.
        """
        launcher: list[str] = []
        options: list[str] = []
        part = launcher
        for word in self.command:
            if part is launcher and (word == "${program}" or Path(word).name == PROGRAM):
                launcher.append(_program())
                part = options
            elif word == "${args}":
                part.extend(arguments)
            elif word == "${env}" or (part is launcher and word in self._assignments()):
                continue
            elif word == "${interpreter}":
                part.append(sys.executable)
            else:
                part.append(_with_variables(word))
        return launcher, options

    def environment(self) -> dict[str, str]:
        """Returns what the command sets by ``NAME=value`` after ``${env}``, which W&B makes ``/usr/bin/env``."""
        pairs = (_with_variables(word).partition("=") for word in self._assignments())
        return {name: value for name, _, value in pairs}

    def _assignments(self) -> list[str]:
        words = itertools.dropwhile(lambda word: word != "${env}", self.command)
        return list(itertools.takewhile(_ASSIGNMENT.match, itertools.islice(words, 1, None)))


def read_sweep_file(path: Path) -> SweepFile:
    """Reads a sweep file and checks its form; its parameters are checked against train.py elsewhere.

    Raises:
        SweepError: no such file, not YAML, not a sweep, or a sweep of another program.
    """
    path = shipped(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SweepError(f"{path}: {error.strerror}, expected a sweep file such as configs/sweeps/*.yaml") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SweepError(f"{path}: not YAML: {plain_reason(error)}") from None
    if not isinstance(content, dict):
        found = {list: "a list", type(None): "nothing"}.get(type(content), "a single value")
        raise SweepError(f"{path}: found {found}, expected a sweep with program, method and parameters")
    missing = [key for key in ("program", "method", "parameters") if key not in content]
    if missing:
        raise SweepError(f"{path}: found no '{missing[0]}', expected a sweep with program, method and parameters")
    if Path(str(content["program"])).name != PROGRAM:
        raise SweepError(f"{path}: program '{content['program']}', expected {PROGRAM}")
    if content["method"] not in METHODS:
        raise SweepError(f"{path}: method '{content['method']}', expected one of {', '.join(METHODS)}")
    run_cap = content.get("run_cap")
    if run_cap is not None and not (isinstance(run_cap, int) and run_cap >= 1):
        raise SweepError(f"{path}: run_cap {run_cap}, expected a whole number of at least 1")
    metric = content.get("metric") or {}
    if not isinstance(metric, dict):
        raise SweepError(f"{path}: metric '{metric}', expected name and goal")
    return SweepFile(
        path=path,
        name=str(content.get("name") or path.stem),
        method=content["method"],
        parameters=_flat(content["parameters"], path),
        command=_checked_command(content.get("command") or list(_DEFAULT_COMMAND), path),
        metric=metric.get("name"),
        project=content.get("project"),
        entity=content.get("entity"),
        run_cap=run_cap,
        early_terminate="early_terminate" in content,
    )


def _flat(parameters: Any, path: Path, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Returns nested parameters (``data: {parameters: {batch_size: …}}``) under dotted keys."""
    if not isinstance(parameters, dict):
        raise SweepError(f"{path}: {prefix}parameters: found {type(parameters).__name__}, expected keys of {PROGRAM}")
    flat: dict[str, dict[str, Any]] = {}
    for key, description in parameters.items():
        if not isinstance(description, dict):
            raise SweepError(f"{path}: parameter {prefix}{key}: found '{description}', expected value or values")
        if "parameters" in description:
            flat.update(_flat(description["parameters"], path, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = description
    return flat


def _checked_command(command: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(command, list):
        raise SweepError(f"{path}: command: found {type(command).__name__}, expected a list of words")
    words = [str(word) for word in command]
    programs = [place for place, word in enumerate(words) if word == "${program}" or Path(word).name == PROGRAM]
    if not programs or words[programs[0] + 1 : programs[0] + 2] != ["fit"]:
        raise SweepError(f"{path}: command: expected 'fit' after ${{program}}, before every option")
    if words.count("${args}") != 1 or words.index("${args}") < programs[0]:
        raise SweepError(f"{path}: command: expected ${{args}} once, after fit and --config")
    known = ("${env}", "${interpreter}", "${program}", "${args}")
    unknown = [word for word in words if "${" in _ENV_VAR.sub("", word) and word not in known]
    if unknown:
        raise SweepError(f"{path}: command: macro {unknown[0]}, expected one of {', '.join(known)}, ${{envvar:NAME}}")
    return tuple(words)


def _with_variables(word: str) -> str:
    """Returns a word with ``${envvar:NAME}`` filled in; W&B leaves the name where there is no such variable."""
    return _ENV_VAR.sub(lambda found: os.environ.get(found[1], found[1]), word)


def _program() -> str:
    """Returns train.py as seen from here, so that a printed command can be read and run again."""
    here = Path.cwd()
    path = PROJECT / PROGRAM
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
