"""A training that begins with the weights of a finished one: other data or settings, and a step count of its own."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
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


def begin_with(
    module: SynthesiserFile,
    path: str,
    same: Iterable[str],
    key: str = _KEY,
    other_parts: Collection[str] = (),
    own_weights: Collection[str] = (),
) -> StoredModule:
    """Puts the weights of a finished training into a module that is about to be trained.

    The averaged ones where there are any; optimiser, schedule and step count begin anew.

    Args:
        module: built, and not trained yet.
        path: a checkpoint, a run folder (its last one), or a folder of ``save_trained``.
        same: settings without which the weights would mean something else.
        key: setting that names the path, for errors.
        other_parts: parts of groups of settings that may differ all the same.
        own_weights: names of weights that stay as they are where the file has none.

    Returns:
        What was read.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: another kind of module, damaged, or settings or shapes that differ.
    """
    files = type(module).file_format
    place = find_checkpoint(path, key)
    named = f"{key} '{path}'"
    if not place.exists():
        raise FileNotFoundError(f"{named}: no such file or folder, expected {module._expected()}")
    stored = files.read_trained(place)
    check_settings(module, stored.settings, same, named, other_parts)
    own = module.state_dict()
    weights = {**{name: own[name] for name in own_weights}, **module._completed(stored.weights)}
    _check_shapes(module, weights, named)
    # Whole tensors go into parameters whose shards lie on several ranks, too.
    set_model_state_dict(module, dict(weights), options=StateDictOptions(full_state_dict=True))
    rank_zero_info(f"{key}: begins with the weights of '{path}'")
    if "trained_on" not in data_state(stored.content):
        rank_zero_warn(
            f"{named} does not record which rows its weights have seen: whoever asks later what this model has "
            "learned from is told of this training's rows alone"
        )
    return stored


def check_settings(
    module: SynthesiserFile,
    settings: dict[str, Any],
    same: Iterable[str],
    named: str,
    other_parts: Collection[str] = (),
) -> None:
    """Compares the settings of a finished module with those of one that is to take over what it has learned.

    Args:
        module: the new one.
        settings: of the finished one, as its file has them.
        same: which settings to compare.
        named: where they come from, for errors.
        other_parts: parts of groups of settings that may differ.

    Raises:
        ValueError: one differs.
    """
    for name in same:
        found, expected = _setting(module, settings, name), _setting(module, dict(module.hparams), name)
        if isinstance(found, dict) and isinstance(expected, dict):
            parts = [key for key in expected if key not in other_parts and found.get(key) != expected[key]]
            if not parts:
                continue
            name, found, expected = f"{name}.{parts[0]}", found.get(parts[0]), expected[parts[0]]
        if found != expected:
            raise FileError(f"{named}: found model.{name}={found}, expected this training's, {expected}")


def _setting(module: SynthesiserFile, settings: dict[str, Any], name: str) -> Any:
    """Returns a setting in plain types, with the defaults that a file of earlier times does not name."""
    signatures = (inspect.signature(c).parameters for c in type(module).__mro__ if "__init__" in vars(c))
    default = next(parameters[name].default for parameters in signatures if name in parameters)
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


def _check_shapes(module: SynthesiserFile, weights: dict[str, Tensor], named: str) -> None:
    own = module.state_dict()
    if odd := sorted(set(own) ^ set(weights)):
        where = "the file has it, this model does not" if odd[0] in weights else "this model has it, the file does not"
        raise FileError(f"{named}: '{odd[0]}': {where} ({len(odd)} such), expected a model of the same settings")
    shapes = [name for name, tensor in own.items() if tensor.shape != weights[name].shape]
    if shapes:
        name = shapes[0]
        raise FileError(
            f"{named}: found '{name}' of shape {tuple(weights[name].shape)} ({len(shapes)} such), this model "
            f"has {tuple(own[name].shape)}"
        )
