"""Names that have moved: what older configs and command lines call them, and what they are called now (C3)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from synfer.foundation.renamed_settings import GROUPED, MOVED, TEST_SETTINGS, has_moved

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

_OLD_CLASS = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, sorted(CLASSES, key=len, reverse=True))) + r")(?!\w)")
_SUBCOMMANDS = ("fit", "validate", "test", "predict")


class MovedKeyError(ValueError):
    """A setting on a command line has left its group."""


def with_present_names(text: str) -> str:
    """Returns a config, or a word of a command line, with the classes of today in place of those that have moved."""
    return _OLD_CLASS.sub(lambda match: CLASSES[match[1]], text)


def with_present_config(text: str, model: Callable[[], str]) -> tuple[str, dict[str, str]]:
    """Reads a config with the keys of today in place of those that have moved.

    Where a config has both, the present key's value stays.

    Args:
        text: YAML.
        model: gives the class path of the model, "" = unknown; asked where the config does not name it.

    Returns:
        The config as YAML, the same text where nothing has moved, and old → new key of the settings that have left
        their group with a value other than their default.
    """
    if not any(re.search(rf"(?<!\w){key.rpartition('.')[2]}(?!\w)", text) for key in MOVED):
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
    told = {old: MOVED[old] for old, value in moved.items() if _leaves_its_group(old) and value != _default_of(old)}
    return (yaml.safe_dump(content, sort_keys=False, allow_unicode=True) if moved else text), told


def with_present_options(words: Sequence[str], model: Callable[[], str]) -> list[str]:
    """Returns the words of a command line with the keys of today in place of those that have moved.

    Args:
        words: command line without the program's name.
        model: gives the class path of the command's model, "" = unknown; asked where it matters.

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
        whole = _whole(key)
        if whole in MOVED:
            if not has_moved(whole, model()):
                continue
            if _leaves_its_group(whole):
                left[whole] = MOVED[whole]
            else:
                present[place] = f"--{_renamed(match[1], whole)}{match[2]}{equals}{value}"
        elif any(old.startswith(f"{key}.") for old in MOVED):
            at = place if equals else place + 1
            moved, inner = _carried_value(key, value if equals else "".join(words[at : at + 1]), model)
            left |= {old: MOVED[old] for old in moved if _leaves_its_group(old)}
            if moved:
                present[at] = f"{option}={inner}" if equals else inner
    if left:
        raise MovedKeyError("; ".join(f"{old} has moved: use {new}" for old, new in left.items()))
    return present


def _class_path(config: dict[str, Any]) -> str:
    model = config.get("model")
    return str(model.get("class_path", "")) if isinstance(model, dict) else str(model or "")


def _carry(config: dict[str, Any], class_path: str) -> dict[str, Any]:
    """Moves the values of a nested config to their present keys in place; returns old key → value."""
    moved = {}
    for old, new in MOVED.items():
        holder = _holder(config, old.split("."))
        if holder is None or not has_moved(old, class_path):
            continue
        moved[old] = value = holder.pop(old.rpartition(".")[2])
        place, path = (config, new) if _leaves_its_group(old) else (holder, _within_its_group(old))
        for part in path.split(".")[:-1]:
            place[part] = place[part] if isinstance(place.get(part), dict) else {}
            place = place[part]
        place.setdefault(new.rpartition(".")[2], value)
    return moved


def _carried_value(key: str, text: str, model: Callable[[], str]) -> tuple[dict[str, Any], str]:
    """Returns what has moved in the value of an option that holds several settings, and the value without it."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}, text
    config = value
    for part in reversed(key.split(".")):
        config = {part: config}
    moved = _carry(config, _class_path(config) or model()) if isinstance(value, dict) else {}
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


def _whole(key: str) -> str:
    """Returns the setting that a key is of: itself, or the one that holds it as a part (``model.unet.norm_eps``)."""
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    return f"{group}.{name}" if group == "model" and name in GROUPED else key


def _renamed(written: str, old: str) -> str:
    """Returns a key as the user wrote it, with ``init_args`` or without, by the setting's new name in its group."""
    parts = written.split(".")
    at = [i for i, part in enumerate(parts) if part != "init_args"][old.count(".")]
    return ".".join([*parts[:at], _within_its_group(old), *parts[at + 1 :]])


def _leaves_its_group(old: str) -> bool:
    return not MOVED[old].startswith(f"{old.rpartition('.')[0]}.")


def _within_its_group(old: str) -> str:
    return MOVED[old].removeprefix(f"{old.rpartition('.')[0]}.")


def _default_of(old: str) -> Any:
    return TEST_SETTINGS.get(old.partition(".")[2])
