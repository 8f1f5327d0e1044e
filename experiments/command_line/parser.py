"""The parser of train.py: errors of one line that say what was meant, and settings that refer to others."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException

from experiments.command_line.config_files import file_with, model_class, with_configs_first, without_include
from experiments.command_line.errors import debugging, report, this_rank
from experiments.command_line.moved_names import (
    MovedKeyError,
    with_present_config,
    with_present_names,
    with_present_options,
)
from experiments.command_line.none_is_null import none_is_null
from experiments.command_line.shorthands import written_out
from synfer.foundation.file_reading import did_you_mean

_CONFIGS = {"data.reader": "configs/data/drawn.yaml", "model": "configs/classifier/tiny.yaml"}
"""A file that gives what a command cannot do without."""

_OF_ONES_OWN = {"data.reader": "configs/data/image_folder.yaml"}
"""The same for whoever has said where the faces are."""


class SynferParser(LightningArgumentParser):
    """Parser whose errors are one line.

    Attributes:
        interpolations: of the command that was parsed: key → what the user wrote where it refers to something else
            (``${oc.env:NAME}``). The parsed configuration holds what it stands for, which may be a secret.
    """

    interpolations: dict[str, Any]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one line and exits with code 2."""
        message = plainly(message, self)
        if not self.exit_on_error or debugging():
            super().error(message, ex)
        report(message + _in_which_file(message))
        raise SystemExit(2)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *more: Any, **options: Any
    ) -> Namespace:
        """Parses a command line; what has moved may be called by its old name."""
        try:
            words = with_configs_first(written_out(sys.argv[1:] if args is None else args))
        except (OSError, ValueError) as error:
            self.error(str(error), error)
        words = [with_present_names(word) for word in words]
        try:
            words = with_present_options(words, lambda: model_class(words))
        except MovedKeyError as error:
            self.error(str(error), error)
        with none_is_null():
            return super().parse_args(words, *more, **options)

    def _load_config_parser_mode(self, content: str, path: Any = "", *args: Any, **options: Any) -> Namespace:
        words = with_configs_first(sys.argv[1:])
        content = without_include(content)
        content, moved = with_present_config(with_present_names(content), lambda: model_class(words))
        if moved and this_rank() == 0:
            where = f"config '{Path(str(path)).absolute()}'" if path else "a config"
            old, new = ", ".join(moved), ", ".join(moved.values())
            print(f"{where}: {old} moved, read as {new}", file=sys.stderr, flush=True)
        return super()._load_config_parser_mode(content, path, *args, **options)

    def _parse_common(self, cfg: Namespace, *args: Any, **kwargs: Any) -> Namespace:
        # Interpolations are resolved in there, by a dump that knows nothing of the config files it came from.
        written = _interpolations(cfg)
        files = {key: value for key, value in cfg.items() if key.rpartition(".")[2] == "config"} if written else {}
        try:
            parsed = super()._parse_common(cfg, *args, **kwargs)
        except OmegaConfBaseException as error:
            self.error(_unresolved(error, written), error)
        for key, value in files.items():
            if key not in parsed:
                parsed[key] = value
        self.interpolations = written
        return parsed


def with_interpolations(config: str, interpolations: dict[str, Any]) -> str:
    """Returns a configuration as YAML with what the user wrote in place of what it stands for.

    Args:
        config: YAML of the resolved configuration.
        interpolations: key → text with ``${…}``, or a list or mapping that holds one.
    """
    if not interpolations:
        return config
    content = yaml.safe_load(config)
    for key, text in interpolations.items():
        *groups, name = key.split(".")
        place = content
        for group in groups:
            place = place.get(group) if isinstance(place, dict) else None
        if isinstance(place, dict) and place.get(name) is not None:  # null: what belongs to this start alone
            place[name] = text
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def plainly(message: str, parser: argparse.ArgumentParser) -> str:
    """Returns the parser's words with a hint at what was meant.

    Args:
        message: error of jsonargparse or argparse.
        parser: that raised it; it knows the keys.
    """
    message = re.sub(r'Parser key "([\w.]+)":', r"\1:", message)
    unknown = re.search(
        r"unrecognized arguments: -*([\w.]+)|does not accept option '([\w.]+)'|Option '(\w+)' is not accepted", message
    )
    if unknown is not None and "did you mean" not in message:
        return message + _nearest_key(unknown[1] or unknown[2] or unknown[3], _keys(parser))
    choices = re.findall(r"typing\.Literal\[(.*?)\]", message)
    if choices:
        known = [word.strip().strip("'") for group in choices for word in group.split(",")]
        found = re.search(r"(?:Got value|Given value): (\S+)", message)
        message = re.sub(r"a typing\.Literal\[(.*?)\]", lambda match: "one of " + match[1].replace("'", ""), message)
        return message + ("" if found is None else did_you_mean(found[1], known))
    abstract = re.search(r"([\w.]+):\s+Expected an instantiatable class", message)
    if abstract is not None and abstract[1] in _CONFIGS:
        key = abstract[1]
        config = _OF_ONES_OWN.get(key, _CONFIGS[key])
        return f"{key}: found settings of it without its class, expected one, as --config {config} names it"
    missing = re.search(r"the following arguments are required: (.*)", message)
    if missing is not None:
        wanted = [key.strip().partition(".")[2] or key.strip() for key in missing[1].split(",")]
        command = missing[1].partition(".")[0]
        given = " ".join(f"--config {_CONFIGS[key]}" for key in wanted if key in _CONFIGS)
        return f"{command} needs {' and '.join(wanted)}: found none" + (f", expected e.g. {given}" if given else "")
    no_class = re.search(r"Expected a dot import path string: (\S+)", message)
    if no_class is not None:
        key = re.match(r"([\w.]+):", message)
        where = "" if key is None else f"{key[1]}: "
        names = _class_names()
        return (
            f"{where}found no class '{no_class[1]}', expected one of ours by its name, or a path such as "
            f"package.module.Class{did_you_mean(no_class[1].rpartition('.')[2], names)}"
        )
    return message


def _in_which_file(message: str) -> str:
    """Returns " (in config '…')" where a config file of the command line sets what the message is about."""
    of_class = re.match(r"([\w.]+): .*?(?:Option '(\w+)' is not accepted|: ([\w.]+): )", message)
    key = re.match(r"Subcommand '\w+' does not accept option '([\w.]+)'|([\w.]+):", message)
    if of_class is not None:
        name = f"{of_class[1]}.{of_class[2] or of_class[3]}"
    elif key is not None:
        name = key[1] or key[2]
    else:
        return ""
    path = file_with(name, sys.argv[1:])
    return "" if path is None else f" (in config '{path}')"


def _nearest_key(key: str, known: list[str]) -> str:
    """Returns a hint at the key most like this one, or at one of the same name in another group."""
    leaves = {name.rpartition(".")[2]: name for name in reversed(known)}
    if key in leaves:  # the first of several groups: data
        return f", did you mean {leaves[key]}?"
    hint = did_you_mean(key, known)
    if hint:
        return hint
    leaf = did_you_mean(key.rpartition(".")[2], list(leaves))
    return f", did you mean {leaves[leaf.removeprefix(', did you mean ').removesuffix('?')]}?" if leaf else ""


def _keys(parser: argparse.ArgumentParser) -> list[str]:
    """Returns the names of all options, those of subcommands included."""
    keys = {option.lstrip("-").rstrip("+") for option in parser._option_string_actions}
    for action in parser._actions:
        if isinstance(action.choices, dict):
            keys |= {key for child in action.choices.values() for key in _keys(child)}
    return sorted(keys)


def _class_names() -> list[str]:
    """Returns the names of our modules and readers."""
    from lightning.pytorch import LightningModule

    from datamodules.readers.reader import Reader

    def below(kind: type) -> list[type]:
        children: list[type] = kind.__subclasses__()
        return [found for child in children for found in (child, *below(child))]

    return sorted({kind.__name__ for kind in below(LightningModule) + below(Reader)})


def _interpolations(config: Namespace) -> dict[str, Any]:
    """Returns the entries of a configuration that hold ``${…}``, as they were written; mappings entry by entry."""
    found: dict[str, Any] = {}

    def collect(key: str, value: Any) -> None:
        if isinstance(value, (dict, Namespace)) and "${" in str(value):
            for name, inner in value.items():
                collect(f"{key}.{name}", inner)
        elif isinstance(value, (str, list, tuple)) and "${" in str(value):
            found[key] = value

    for key, value in config.items():
        if not key.endswith("config"):
            collect(key, value)
    return found


def _unresolved(error: OmegaConfBaseException, written: dict[str, Any]) -> str:
    """Returns one line about a reference that leads nowhere."""
    key = str(getattr(error, "full_key", "") or "")
    text = next((text for name, text in written.items() if name == key or name.endswith(f".{key}")), None)
    reason = str(error).splitlines()[0]
    variable = re.search(r"Environment variable '(\w+)' not found", reason)
    if variable is not None:
        said = f"found no environment variable '{variable[1]}', expected it to be set (or ${{oc.env:{variable[1]},…}})"
    elif (other := re.search(r"Interpolation key '([^']*)' not found", reason)) is not None:
        said = f"found no key '{other[1]}', expected one beside it (as in ${{.name}}) or an environment variable"
    else:
        said = reason
    command, _, setting = key.partition(".")
    return f"{setting or command or 'configuration'}: {text or 'a reference'} cannot be resolved: {said}"
