"""Names that have moved: what older configs and command lines call them, and what they are called now (C3)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import yaml

T = TypeVar("T")

CLASSES = {
    "callbacks.face_table.FaceTable": "callbacks.synthesis.face_table.FaceTable",
    "callbacks.layout_initialisation.LayoutInitialisation": (
        "callbacks.synthesis.layout_initialisation.LayoutInitialisation"
    ),
    "callbacks.metrics_csv.MetricsCsv": "callbacks.recording.metrics_csv.MetricsCsv",
    "callbacks.online_synthesis.OnlineSynthesis": "callbacks.synthesis.online_synthesis.OnlineSynthesis",
    "callbacks.pseudo_labeller.PseudoLabeller": "callbacks.synthesis.pseudo_labeller.PseudoLabeller",
    "callbacks.run_checkpoint.RunCheckpoint": "callbacks.recording.run_checkpoint.RunCheckpoint",
    "callbacks.semantic_guidance.SemanticGuidance": "callbacks.synthesis.semantic_guidance.SemanticGuidance",
    "callbacks.synthetic_set_writer.SyntheticSetWriter": "callbacks.synthesis.synthetic_set_writer.SyntheticSetWriter",
    "callbacks.throughput.Throughput": "callbacks.recording.throughput.Throughput",
    "callbacks.wandb_run.WandbRun": "callbacks.recording.wandb_run.WandbRun",
    "datamodules.expression.ExpressionDataModule": "datamodules.expression_data_module.ExpressionDataModule",
    "datamodules.readers.OtherSplitReader": "datamodules.readers.RemappedReader",
    "datamodules.readers.other_split.OtherSplitReader": "datamodules.readers.remapped.RemappedReader",
    "lightning_modules.action_unit_estimation.ActionUnitEstimation": (
        "lightning_modules.action_unit_estimator.ActionUnitEstimator"
    ),
    "lightning_modules.label_table_score.LabelTableScore": "lightning_modules.label_evaluation.LabelEvaluation",
}
"""Import path of a class that a config may name → its import path now."""

KEYS = {
    "model.test_samples": "test.samples",
    "model.test_expressions": "test.expressions",
    "model.test_batch_size": "test.batch_size",
    "model.judge": "test.judge",
    "model.features": "test.features",
    "model.features_weights": "test.features_weights",
    "model.au_estimator": "test.au_estimator",
    "model.au_present_above": "test.au_present_above",
    "model.nearest_training": "test.nearest_training",
}
"""Key of a setting, without ``init_args`` → its key now.

In files, and in the records of older runs, the present key is read in its place. On a command line too, unless the
setting has left ``model`` for another group: then the user is told (:class:`MovedKeyError`).
"""

LEFT_THE_GENERATOR = {
    **dict.fromkeys(("judge", "features", "features_weights", "au_estimator", "test_expressions")),
    **{"test_samples": 1000, "test_batch_size": 100, "au_present_above": 0.5, "nearest_training": 4000},
}
"""Settings that were the generator's → their defaults: another model may have one of such a name, which stays."""

_OLD_CLASS = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, sorted(CLASSES, key=len, reverse=True))) + r")(?!\w)")
_SUBCOMMANDS = ("fit", "validate", "test", "predict")


class MovedKeyError(ValueError):
    """A setting on a command line has left its group."""


def with_present_names(text: str) -> str:
    """Returns a config, or a word of a command line, with the classes of today in place of those that have moved."""
    return _OLD_CLASS.sub(lambda match: CLASSES[match[1]], text)


def with_present_keys(text: str, model: Callable[[], str]) -> tuple[str, dict[str, str]]:
    """Reads a config with the keys of today in place of those that have moved.

    Where a config has both, the present key's value stays.

    Args:
        text: YAML.
        model: gives the class path of the model, "" = unknown; asked where the config does not name it.

    Returns:
        The config as YAML, the same text where nothing has moved, and old → new key of the settings that have left
        their group with a value other than their default.
    """
    if not any(re.search(rf"(?<!\w){key.rpartition('.')[2]}(?!\w)", text) for key in KEYS):
        return text, {}
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return text, {}  # whoever reads it says what is wrong with it
    if not isinstance(content, dict):
        return text, {}
    moved: dict[str, Any] = {}
    for part in (content, *(content[name] for name in _SUBCOMMANDS if isinstance(content.get(name), dict))):
        moved |= _carry(part, _class_path(part) or model())
    told = {old: KEYS[old] for old, value in moved.items() if _leaves_its_group(old) and value != _default_of(old)}
    return (yaml.safe_dump(content, sort_keys=False, allow_unicode=True) if moved else text), told


def with_present_options(words: Sequence[str], is_generator: Callable[[], bool]) -> list[str]:
    """Returns the words of a command line with the keys of today in place of those that have moved.

    Args:
        words: command line without the program's name.
        is_generator: whether the command's model is a generator, or unknown; asked where it matters.

    Raises:
        MovedKeyError: a setting has left its group; all such are named.
    """
    present, left = list(words), {}
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        match = re.fullmatch(r"--([\w.]+?)(\+?)", option)
        if match is None:
            continue
        key = _plain(match[1])
        if key in KEYS:
            if not _leaves_its_group(key):
                present[place] = f"--{_renamed(match[1], KEYS[key])}{match[2]}{equals}{value}"
            elif key.partition(".")[2] not in LEFT_THE_GENERATOR or is_generator():
                left[key] = KEYS[key]
        elif any(old.startswith(f"{key}.") for old in KEYS):
            at = place if equals else place + 1
            moved, inner = _carried_value(key, value if equals else "".join(words[at : at + 1]))
            left |= {old: KEYS[old] for old in moved if _leaves_its_group(old)}
            if moved:
                present[at] = f"{option}={inner}" if equals else inner
    if left:
        raise MovedKeyError("; ".join(f"{old} has moved: use {new}" for old, new in left.items()))
    return present


def with_present_settings(flat: Mapping[str, T]) -> dict[str, T]:
    """Returns settings by dotted key, without ``init_args``, by their keys of today."""
    model = str(flat.get("model.class_path", ""))
    renamed = {key: KEYS[key] for key in flat if key in KEYS and _moves(key, model)}
    return {renamed.get(key, key): value for key, value in flat.items() if renamed.get(key) not in flat}


def is_generators(class_path: str) -> bool:
    """Whether a class path is that of a generator, or empty: unknown."""
    return not class_path or class_path.rpartition(".")[2] == "ExpressionGenerator"


def _class_path(config: dict[str, Any]) -> str:
    model = config.get("model")
    return str(model.get("class_path", "")) if isinstance(model, dict) else str(model or "")


def _carry(config: dict[str, Any], class_path: str) -> dict[str, Any]:
    """Moves the values of a nested config to their present keys in place; returns old key → value."""
    moved = {}
    for old, new in KEYS.items():
        holder = _holder(config, old.split("."))
        if holder is None or not _moves(old, class_path):
            continue
        moved[old] = value = holder.pop(old.rpartition(".")[2])
        if not _leaves_its_group(old):
            holder.setdefault(new.rpartition(".")[2], value)
            continue
        place = config
        for part in new.split(".")[:-1]:
            place[part] = place[part] if isinstance(place.get(part), dict) else {}
            place = place[part]
        place.setdefault(new.rpartition(".")[2], value)
    return moved


def _carried_value(key: str, text: str) -> tuple[dict[str, Any], str]:
    """Returns what has moved in the value of an option that holds several settings, and the value without it."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}, text
    config = value
    for part in reversed(key.split(".")):
        config = {part: config}
    moved = _carry(config, _class_path(config)) if isinstance(value, dict) else {}
    return moved, json.dumps(value)


def _holder(config: dict[str, Any], parts: list[str]) -> dict[str, Any] | None:
    """Returns the mapping in which the last of the parts is a key; None where there is none."""
    node: Any = config
    for i, part in enumerate(parts):
        inside = node.get("init_args") if isinstance(node, dict) else None
        if isinstance(inside, dict) and part not in node:
            node = inside
        if not isinstance(node, dict) or part not in node:
            return None
        if i == len(parts) - 1:
            return node
        node = node[part]
    return None


def _plain(key: str) -> str:
    return ".".join(part for part in key.split(".") if part != "init_args")


def _renamed(written: str, new: str) -> str:
    """Returns a key as the user wrote it, with ``init_args`` or without, by its new last part."""
    return f"{written.rpartition('.')[0]}.{new.rpartition('.')[2]}"


def _leaves_its_group(old: str) -> bool:
    return old.rpartition(".")[0] != KEYS[old].rpartition(".")[0]


def _default_of(old: str) -> Any:
    return LEFT_THE_GENERATOR.get(old.partition(".")[2])


def _moves(old: str, class_path: str) -> bool:
    """Whether a key of a config with this model is one that has moved, and not another model's own."""
    group, _, name = old.partition(".")
    return group != "model" or name not in LEFT_THE_GENERATOR or is_generators(class_path)
