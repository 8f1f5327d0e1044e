"""A misspelt key of a group, told without importing anything: what a group takes stands in the source of its class.

Importing Lightning takes seconds, and a typo should not. What is told here the parser would tell as well, in the same
words; whatever is less certain is left to it.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from experiments.command_line.project import PROJECT
from synfer.foundation.renamed_settings import MOVED

_CLASSES = {
    "data": ("datamodules/expression_data_module.py", "ExpressionDataModule"),
    "trainer": ("lightning:pytorch/trainer/trainer.py", "Trainer"),
    "synthesis": ("callbacks/synthesis/online_synthesis.py", "OnlineSynthesis"),
    "layout": ("callbacks/synthesis/layout_initialisation.py", "LayoutInitialisation"),
    "guidance": ("callbacks/synthesis/semantic_guidance.py", "SemanticGuidance"),
    "pseudo_labels": ("callbacks/synthesis/pseudo_labeller.py", "PseudoLabeller"),
    "misclassified": ("callbacks/misclassified_faces.py", "MisclassifiedFaces"),
    "test": ("callbacks/generator_test.py", "GeneratorTest"),
    "wandb": ("callbacks/recording/wandb_run.py", "WandbOptions"),
    "cluster": ("experiments/cluster/cluster_options.py", "ClusterOptions"),
    "slurm": ("experiments/cluster/slurm_options.py", "SlurmOptions"),
}
"""Group of the command line → file and class that say what it takes."""

_OF_THE_RUN = ("config", "run_dir", "ckpt_path", "seed_everything", "print_config", "preset", "model", "checkpoint")
_ALIKE = 0.8
"""Least similarity, in [0, 1], of a word to a key of its group that makes it a misspelling of that key."""


def misspelt_key(args: Sequence[str]) -> str | None:
    """Returns a line about the options of a command line that are none but look like one; None where all may be right.

    Args:
        args: command line without the program's name.
    """
    if not args or args[0].startswith("-") or "--help" in args or "-h" in args:
        return None
    unknown: list[tuple[str, str]] = []
    for place, word in enumerate(args):
        match = re.match(r"--([\w.]+)", word)
        meant = None if match is None else _meant(match[1])
        if match is None or meant is None:
            continue
        values = []
        for value in [] if "=" in word else args[place + 1 :]:
            if value.startswith("--"):
                break
            values.append(value)
        unknown.append((" ".join([word, *values]), meant))
    if not unknown:
        return None
    return f"unrecognized arguments: {' '.join(text for text, _ in unknown)}, did you mean {unknown[0][1]}?"


def _meant(key: str) -> str | None:
    """Returns the key that a misspelt one is most like; None where it is known, moved or unlike all."""
    if key in MOVED:
        return None
    group, dot, rest = key.partition(".")
    if not dot:
        known: Sequence[str] = (*_CLASSES, *_OF_THE_RUN)
        return None if group in known else _nearest(group, known)
    name, dot, _ = rest.partition(".")
    settings = settings_of(group)
    if dot or name in ("help", "config") or not settings or name in settings:
        return None  # deeper keys depend on classes that the command names
    found = _nearest(name, settings)
    return None if found is None else f"{group}.{found}"


def _nearest(word: str, known: Sequence[str]) -> str | None:
    found = difflib.get_close_matches(word, known, n=1, cutoff=_ALIKE)
    return found[0] if found else None


@cache
def settings_of(group: str) -> tuple[str, ...]:
    """Returns the names of the settings that a group takes; () of a group whose class does not say them all itself."""
    if group not in _CLASSES:
        return ()
    path, name = _CLASSES[group]
    package, colon, inside = path.partition(":")
    if colon:
        spec = find_spec(package)
        places = [] if spec is None else list(spec.submodule_search_locations or [])
        file = Path(places[0], inside) if places else Path(inside)
    else:
        file = PROJECT / path
    try:
        module = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ()
    kinds = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name]
    return settings_of_class(kinds[0]) if kinds else ()


def settings_of_class(kind: ast.ClassDef) -> tuple[str, ...]:
    """Returns the names of the arguments of a class; () where it does not say them all itself."""
    for node in kind.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            taken = node.args
            if taken.kwarg is not None or taken.vararg is not None:
                return ()
            return tuple(argument.arg for argument in (*taken.args[1:], *taken.kwonlyargs))
    if any("dataclass" in ast.unparse(decorator) for decorator in kind.decorator_list):
        fields = [node.target for node in kind.body if isinstance(node, ast.AnnAssign)]
        return tuple(field.id for field in fields if isinstance(field, ast.Name))
    return ()
