"""The files behind ``--config``: read once before the parser does, for an error that names file and place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from experiments.command_line.project import shipped
from synfer.foundation.file_reading import FileError, reading

_GROUPS = (
    "trainer",
    "data",
    "model",
    "synthesis",
    "layout",
    "guidance",
    "pseudo_labels",
    "misclassified",
    "test",
    "wandb",
    "cluster",
    "slurm",
    "checkpoint",
)
INCLUDE = "include"
"""Key of a config that names other configs, which are read before it."""

_INCLUDES = re.compile(rf"^{INCLUDE}\s*:", re.MULTILINE)
_MISSING = object()
_NAMES: dict[type, str] = {list: "a list", str: "text"}


def check_config_files(args: Sequence[str]) -> None:
    """Checks that the config files of a command line are YAML settings; a missing one is left to the parser.

    Args:
        args: command line without the program's name.

    Raises:
        ValueError: a file in another encoding, no YAML, or something other than settings.
    """
    for path in _files(args):
        _check(path)


def file_with(key: str, args: Sequence[str]) -> Path | None:
    """Returns the last config file of a command line that sets a key, None where the command line does it itself.

    Args:
        key: dotted; of a class, with or without ``init_args``.
        args: command line without the program's name.
    """
    wanted = [part for part in key.split(".") if part != "init_args"]
    if any(word.partition("=")[0] == f"--{key}" for word in args):
        return None
    found = None
    for path in _files(args):
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        for part in wanted:
            inside = content.get("init_args") if isinstance(content, dict) else None
            if isinstance(inside, dict) and part not in content:
                content = inside
            content = content[part] if isinstance(content, dict) and part in content else _MISSING
        found = found if content is _MISSING else path
    return found


def model_class(args: Sequence[str]) -> str:
    """Returns the class of the model that a command line names, itself or in its config files; "" where it is silent.

    Args:
        args: command line without the program's name.
    """
    found = ""
    for word, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        value = value if equals else following
        if name in ("--model", "--model.class_path") and not value.startswith("{"):
            found = value
        for path in _files([name, value]):
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
            model = content.get("model") if isinstance(content, dict) else None
            if isinstance(model, str) or (isinstance(model, dict) and "class_path" in model):
                found = model if isinstance(model, str) else str(model["class_path"])
    return found


def with_shipped_configs(args: Sequence[str]) -> list[str]:
    """Returns a command line whose configs are found from any folder, a user's own before those of the project.

    Args:
        args: command line without the program's name.
    """
    words = list(args)
    for place, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name not in ("--config", "-c"):
            continue
        if equals and value:
            words[place] = f"{name}={shipped(value)}"
        elif not equals and place + 1 < len(words):
            words[place + 1] = str(shipped(words[place + 1]))
    return words


def with_configs_first(args: Sequence[str]) -> list[str]:
    """Returns a command line whose config files stand before all other options, in their own order.

    The parser lets a later file win over an earlier option of the same key; here an option wins over every file.

    Args:
        args: command line without the program's name: options, with or without the task before them.
    """
    task = list(args[:1]) if args and not args[0].startswith("-") else []
    files: list[str] = []
    others: list[str] = []
    words = iter(args[len(task) :])
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in ("--config", "-c"):
            others.append(word)
            continue
        files.append(word)
        following = None if equals else next(words, None)
        if following is not None:
            files.append(following)
    return [*task, *files, *others]


def with_included_configs(args: Sequence[str]) -> list[str]:
    """Returns a command line in which the configs that a config includes stand before it, each file once.

    A config names others under ``include``, a list of paths: as behind ``--config``, or beside the file. They come
    before it, so that its own settings win; a file that was named before is not read again.

    Args:
        args: command line without the program's name.

    Raises:
        ValueError: what stands under ``include`` is no list of files.
    """
    words: list[str] = []
    read: set[Path] = set()
    left = iter(args)
    for word in left:
        name, equals, value = word.partition("=")
        following = None if equals or name not in ("--config", "-c") else next(left, None)
        if name not in ("--config", "-c") or not (value or following):
            words += [word] if following is None else [word, following]
            continue
        for path in _with_included(shipped(value or str(following)), read):
            words += [f"{name}={path}"] if equals else [name, str(path)]
    return words


def without_include(text: str) -> str:
    """Returns the text of a config without what it includes, which stands on the command line by then."""
    if not _INCLUDES.search(text):
        return text
    content = yaml.safe_load(text)
    return yaml.safe_dump({name: value for name, value in content.items() if name != INCLUDE}, sort_keys=False)


def _with_included(path: Path, read: set[Path]) -> list[Path]:
    """Returns a config after those that it includes, without any that is among ``read``; all are added there."""
    read.add(path.resolve())
    found: list[Path] = []
    for other in included(path):
        if other.resolve() not in read:
            found += _with_included(other, read)
    return [*found, path]


def included(path: Path) -> list[Path]:
    """Returns the configs that a config names under ``include``; [] where it is no readable config.

    Raises:
        ValueError: no list of files, or a file that is not there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = yaml.safe_load(text) if _INCLUDES.search(text) else {}
    except (OSError, ValueError, yaml.YAMLError):
        return []  # whoever reads it says what is wrong with it
    names = content.get(INCLUDE, []) if isinstance(content, dict) else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FileError(f"config '{path}': found {names!r} under '{INCLUDE}', expected a list of config files")
    found = []
    for name in names:
        beside = path.parent / name
        other = shipped(name)
        if not other.is_file() and not beside.is_file():
            raise FileError(f"config '{path}': found no file '{name}', which it includes, expected a config there")
        found.append(other if other.is_file() else beside)
    return found


def _files(args: Sequence[str]) -> list[Path]:
    named = []
    for word, following in zip(args, [*args, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name in ("--config", "-c"):
            named.append(shipped(value if equals else following))
    return [path for path in named if path.is_file()]


def _check(path: Path) -> None:
    expected = "settings as YAML (UTF-8)"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with reading("config", path, expected):
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=loader)
    if content is None:
        raise FileError(f"config '{path}': found no settings in it, expected {expected}")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        found = "settings without names" if isinstance(content, dict) else _NAMES.get(type(content), "a single value")
        raise FileError(f"config '{path}': found {found}, expected {expected}, as name: value")
    empty = [group for group in _GROUPS if group in content and content[group] is None]
    if empty:
        raise FileError(f"config '{path}': found nothing under '{empty[0]}', expected settings there, or no such line")
