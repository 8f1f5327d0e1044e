"""A training that begins with the weights of a finished one: other data or settings, and a step count of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from lightning_modules.synthesiser_file import SynthesiserFile
from lightning_modules.training_provenance import data_state
from synfer.foundation.checkpoint_file import find_checkpoint
from synfer.foundation.file_reading import FileError
from synfer.foundation.module_file import StoredModule

_KEY = "model.initial_weights"


def begin_with(module: SynthesiserFile, path: str, same: Iterable[str]) -> StoredModule:
    """Puts the weights of a finished training into a module that is about to be trained.

    The averaged ones where there are any; optimiser, schedule and step count begin anew.

    Args:
        module: built, and not trained yet.
        path: a checkpoint, a run folder (its last one), or a folder of ``save_trained``.
        same: settings without which the weights would mean something else.

    Returns:
        What was read.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: another kind of module, damaged, or settings or shapes that differ.
    """
    files = type(module).file_format
    place = find_checkpoint(path, _KEY)
    if not place.exists():
        raise FileNotFoundError(f"{_KEY} '{path}': no such file or folder, expected {module._expected()}")
    stored = files.read_trained(place)
    _check_settings(module, stored, same, path)
    weights = module._completed(stored.weights)
    _check_shapes(module, weights, path)
    # Whole tensors go into parameters whose shards lie on several ranks, too.
    set_model_state_dict(module, dict(weights), options=StateDictOptions(full_state_dict=True))
    rank_zero_info(f"{_KEY}: begins with the weights of '{path}'")
    if "trained_on" not in data_state(stored.content):
        rank_zero_warn(
            f"{_KEY} '{path}' does not record which rows its weights have seen: whoever asks later what this model has "
            "learned from is told of this training's rows alone"
        )
    return stored


def _check_settings(module: SynthesiserFile, stored: StoredModule, same: Iterable[str], path: str) -> None:
    for name in same:
        found, expected = _setting(module, stored.settings, name), _setting(module, dict(module.hparams), name)
        if found == expected:
            continue
        if isinstance(found, dict) and isinstance(expected, dict):
            part = next(key for key in expected if found.get(key) != expected[key])
            name, found, expected = f"{name}.{part}", found.get(part), expected[part]
        raise FileError(f"{_KEY} '{path}': found model.{name}={found}, expected this training's, {expected}")


def _setting(module: SynthesiserFile, settings: dict[str, Any], name: str) -> Any:
    """Returns a setting in plain types, with the defaults that a file of earlier times does not name."""
    default = inspect.signature(type(module).__init__).parameters[name].default
    value = settings.get(name, default)
    group = type(module).setting_groups.get(name)
    if group is not None:
        made = group(**value) if isinstance(value, dict) else value
        return {key: _plain(part) for key, part in vars(made).items()}
    return _plain(value)


def _plain(value: Any) -> Any:
    """Lists in place of tuples: JSON knows no others."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _check_shapes(module: SynthesiserFile, weights: dict[str, Tensor], path: str | Path) -> None:
    own = module.state_dict()
    if odd := sorted(set(own) ^ set(weights)):
        where = "the file has it, this model does not" if odd[0] in weights else "this model has it, the file does not"
        raise FileError(
            f"{_KEY} '{path}': '{odd[0]}': {where} ({len(odd)} such), expected a model of the same settings"
        )
    shapes = [name for name, tensor in own.items() if tensor.shape != weights[name].shape]
    if shapes:
        name = shapes[0]
        raise FileError(
            f"{_KEY} '{path}': found '{name}' of shape {tuple(weights[name].shape)} ({len(shapes)} such), this model "
            f"has {tuple(own[name].shape)}"
        )
