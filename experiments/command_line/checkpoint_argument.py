"""What ``--ckpt_path`` means, and whether that checkpoint fits the model: known before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from experiments.command_line.project import shipped
from synfer.foundation.checkpoint_file import check_finite, find_checkpoint, read_checkpoint
from synfer.foundation.file_reading import FileError, reading
from synfer.foundation.module_file import KIND, is_folder_of_weights, read_folder_as_checkpoint
from synfer.runs.run_format import CHECKPOINTS

_OF_SHARDS = (".metadata", "meta.pt", "checkpoint", "latest")
"""Files or folders, one of which every sharded checkpoint holds: of torch, of FSDP in Lightning, of DeepSpeed."""


def is_file_name(given: Any) -> bool:
    """Whether a ``ckpt_path`` names something on this machine, not "last" or an address."""
    return given not in (None, "last", "best", "hpc") and "://" not in str(given)


def locate(given: str, fit: bool) -> str:
    """Returns the checkpoint that the user means, of a run folder its last one.

    Args:
        given: what stands on the command line.
        fit: whether a training is to go on from it.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a folder of bare weights in ``fit``, a damaged file, or no checkpoint.
    """
    given = str(shipped(given))
    if not Path(given).exists():
        raise FileNotFoundError(f"ckpt_path: found no file '{given}', expected a checkpoint or a run folder")
    if is_folder_of_weights(given):
        if not fit:
            return given
        raise FileError(
            f"ckpt_path: '{given}' is a folder of save_trained, weights alone; expected a checkpoint to go on from "
            "(predict, test and validate take such a folder)"
        )
    path = find_checkpoint(given, "ckpt_path")
    if path.is_file():  # sharded checkpoints are folders
        content = read_checkpoint(path, "ckpt_path", mmap=True)
        if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
            raise FileError(f"ckpt_path: found no weights in '{path}', expected a checkpoint of train.py fit")
    elif not any(path.iterdir()):
        raise FileNotFoundError(f"ckpt_path: found an empty folder '{path}', expected a checkpoint or a run folder")
    elif not any((path / name).exists() for name in _OF_SHARDS):
        runs = sorted(folder.parent.name for folder in path.glob(f"*/{CHECKPOINTS}"))
        inside = f" (one of the runs in it: {', '.join(runs[:3])})" if runs else ""
        raise FileError(
            f"ckpt_path: found no checkpoint in the folder '{path}', expected a checkpoint or a run folder{inside}"
        )
    return str(path)


def check_fits(given: str, model: LightningModule) -> None:
    """Compares the weights of a checkpoint with the model that is to take them.

    Args:
        given: path of the checkpoint; sharded ones are left to Lightning.
        model: as it was built from the settings.

    Raises:
        ValueError: weights of another shape or name, of a network with other settings, or that are not finite.
    """
    path = Path(given)
    if not path.is_file() and not is_folder_of_weights(path):
        return
    kind = type(model).__name__
    content = _weights_alone(path, model) if path.is_dir() else read_checkpoint(path, "ckpt_path", mmap=True)
    stored: dict[str, Tensor] = content["state_dict"]
    own = model.state_dict()
    shared = [name for name in own if name in stored]
    other = [name for name in shared if own[name].shape != stored[name].shape]
    if shared and (check := getattr(model, "check_stored_settings", None)) is not None:
        check(content.get("hyper_parameters", {}), f"ckpt_path '{path}'")
    if not shared or other:
        _let_the_model_say(content, model, path)
    if not shared:
        raise FileError(
            f"ckpt_path '{path}': found weights of another kind of model (first '{next(iter(stored), 'none')}'), "
            f"expected a checkpoint of {kind}"
        )
    if other:
        name = other[0]
        raise FileError(
            f"ckpt_path '{path}': found '{name}' of shape {_shape(stored[name])}, expected {_shape(own[name])} as in "
            f"this {kind} ({len(other)} of {len(own)} tensors differ: another backbone, size or label space)"
        )
    odd = sorted(set(own) ^ set(stored)) if path.is_dir() else []
    if odd:
        found = "found" if odd[0] in stored else "found no"
        raise FileError(
            f"ckpt_path '{path}': {found} '{odd[0]}' ({len(odd)} such tensors), expected the weights of this {kind} "
            "and no others (another model.trained, model.base or network)"
        )
    check_finite(stored, "ckpt_path", path)


def _weights_alone(folder: Path, model: LightningModule) -> dict[str, Any]:
    """Returns a folder of trained weights as this model takes it.

    Raises:
        ValueError: of another kind of module.
    """
    content = read_folder_as_checkpoint(folder)
    kind = getattr(getattr(model, "file_format", None), "kind", None)
    if kind != content[KIND]:
        raise FileError(
            f"ckpt_path '{folder}': found a folder of the kind {content[KIND]}, expected weights of a "
            f"{type(model).__name__}"
        )
    with reading("ckpt_path", folder, f"weights of this {type(model).__name__}"):
        model.on_load_checkpoint(content)
    return content


def _let_the_model_say(content: dict[str, Any], model: LightningModule, path: Path) -> None:
    """Raises what the model itself has against a checkpoint, such as another label space or backbone by its name."""
    try:
        with reading("ckpt_path", path, f"a checkpoint of this {type(model).__name__}"):
            model.on_load_checkpoint({**content, "state_dict": dict(content["state_dict"])})
    except ValueError as error:
        if "EMA state" not in str(error):  # which says less than the shapes
            raise


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "()"
