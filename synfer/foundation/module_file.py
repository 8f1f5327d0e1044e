"""Trained modules on disk: which kind of module a checkpoint or a folder holds, its settings and its weights.

There are two forms. A Lightning checkpoint (``.ckpt``) holds all that a training goes on from; a folder of
``config.json`` (settings) and ``model.safetensors`` (weights) holds what a finished module needs, and nothing else.
Both say under ``kind`` what wrote them; files that are older than that word are told by what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synfer.foundation.checkpoint_file import check_finite, find_checkpoint, read_checkpoint
from synfer.foundation.file_reading import FileError, reading
from synfer.foundation.json_file import read_json, write_json
from synfer.foundation.renamed_settings import present_settings
from synfer.foundation.safetensors_file import read_safetensors, write_safetensors

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
KIND = "kind"
WEIGHTS_ALONE = "weights_alone"
"""Entry of a folder that is read as a checkpoint: there is no state of a training in it."""

_ENTRIES = {"label_annotator": "annotator", "expression_classifier": "classifier"}
"""Entry that the checkpoints of a kind have always had → that kind."""

_MARKS = {"min_snr_gamma": "diffusion", "au_names": "au_estimator"}
"""Setting that all files of a kind have always had, and no other kind's → that kind; of kinds that are older than the
files' own word for it."""


def kind_of(path: str | Path, name: str = "module") -> str | None:
    """Returns which kind of module a path leads to, such as "diffusion", "vae_gan" or "classifier".

    Args:
        path: a checkpoint, a run folder (its last checkpoint), or a folder of weights.
        name: what it should be, for errors.

    Returns:
        None for a checkpoint or a folder of something else, such as timm's or a diffusers pipeline.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a damaged file.
    """
    path = find_checkpoint(path, name)
    if not path.is_dir():
        return kind_of_checkpoint(read_checkpoint(path, name, mmap=True))
    config = path / CONFIG_FILE
    return kind_of_settings(read_json(config, f"config of a {name}")) if config.is_file() else None


def kind_of_checkpoint(content: Any) -> str | None:
    """Returns the kind of module that wrote a checkpoint, by what is in it."""
    if not isinstance(content, dict):
        return None
    if isinstance(content.get(KIND), str):
        return content[KIND]
    found = next((kind for entry, kind in _ENTRIES.items() if entry in content), None)
    settings = content.get("hyper_parameters")
    return kind_of_settings(settings) if found is None and isinstance(settings, Mapping) else found


def kind_of_settings(settings: Mapping[str, Any]) -> str | None:
    """Returns the kind of module that settings belong to, those of a folder or of Lightning's ``hyper_parameters``."""
    if isinstance(settings.get(KIND), str):
        return settings[KIND]
    return next((kind for mark, kind in _MARKS.items() if mark in settings), None)


@dataclass(frozen=True)
class StoredModule:
    """What a file holds of a trained module.

    Attributes:
        settings: arguments of its class, by the names that they have now.
        weights: by name, the averaged ones in place where there are any.
        content: all of the checkpoint; {} of a folder.
        entry: what this kind of module keeps in a checkpoint under a name of its own; {} where it has none.
    """

    settings: dict[str, Any]
    weights: dict[str, Tensor]
    content: dict[str, Any] = field(default_factory=dict)
    entry: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModuleFormat:
    """How the files of one kind of module are laid out, and what errors call them.

    Attributes:
        kind: "classifier".
        submodule: name of the submodule that is trained and averaged.
        class_name: of the LightningModule, for errors.
        entry: where its checkpoints hold {"config": settings, "ema": average}; None = in Lightning's
            ``hyper_parameters`` and in "ema".
        name: in errors; None = as ``kind``.
    """

    kind: str
    submodule: str
    class_name: str
    entry: str | None = None
    name: str | None = None

    def read_trained(self, path: Path, map_location: str | torch.device = "cpu") -> StoredModule:
        """Reads a checkpoint, or a folder that :func:`write_folder` wrote; a run folder means its last checkpoint.

        Raises:
            FileNotFoundError: nothing there.
            ValueError: damaged, of another kind, or weights that are not finite.
        """
        if is_folder_of_weights(path):
            return self.read_folder(path)
        return self.read_checkpoint(path, map_location)

    def read_checkpoint(self, path: Path, map_location: str | torch.device = "cpu") -> StoredModule:
        """Reads a checkpoint: nothing in it is executed, and all its weights are numbers.

        Args:
            path: a checkpoint, or a run folder, which means its last one.
            map_location: device.

        Raises:
            FileNotFoundError: no file there.
            ValueError: damaged, of another kind, or weights that are not finite.
        """
        name = self.name or self.kind
        path = find_checkpoint(path, name)
        content = read_checkpoint(path, name, map_location)
        found = kind_of_checkpoint(content)
        if self.entry is not None and (found != self.kind or self.entry not in content):
            raise ValueError(f"{path} is no checkpoint of {self.class_name}: it lacks the key '{self.entry}'")
        if found != self.kind or (self.entry is None and "state_dict" not in content):
            article = "an" if self.class_name[0] in "AEIOU" else "a"
            raise ValueError(f"checkpoint '{path}': expected one of {article} {self.class_name}, found another model's")
        with reading(f"{name} checkpoint", path, "one written by training"):
            entry = {} if self.entry is None else dict(content[self.entry])
            stored = entry["config"] if entry else content["hyper_parameters"]
            average = (entry if entry else content).get("ema")
            check_finite(content["state_dict"], f"{name} checkpoint", path)
            check_finite((average or {}).get("average", {}), f"{name} checkpoint", path)
            weights = with_average(content["state_dict"], average, self.submodule)
            return StoredModule(present_settings(self.kind, stored), weights, content, entry)

    def read_folder(self, folder: Path) -> StoredModule:
        """Reads a folder that :func:`write_folder` wrote.

        Raises:
            ValueError: a file is missing or damaged, of another kind, or weights that are not finite.
        """
        name = self.name or self.kind
        if (missing := missing_file(folder)) is not None:
            raise FileError(
                f"{name} folder '{folder}': found no {missing}, expected one written by save_trained, or a run folder"
            )
        config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
        settings = read_json(config, f"config of a {name}", "what save_trained wrote")
        tensors = read_safetensors(weights, f"weights of a {name}", "what save_trained wrote")
        mark, found = (
            next((mark for mark, kind in _MARKS.items() if kind == self.kind), None),
            kind_of_settings(settings),
        )
        if mark is None and found != self.kind:
            raise FileError(f"config of a {name} '{config}': found the kind {found}, expected {self.kind}")
        if mark is not None and (mark not in settings or found != self.kind):
            raise FileError(f"config of a {name} '{config}': found no entry '{mark}', expected what save_trained wrote")
        settings.pop(KIND, None)
        return StoredModule(present_settings(self.kind, settings), {n: t.float() for n, t in tensors.items()})


def is_folder_of_weights(path: str | Path) -> bool:
    """Whether a path is a folder that :func:`write_folder` wrote, or what is left of one."""
    return (Path(path) / WEIGHTS_FILE).is_file()


def read_folder_as_checkpoint(folder: Path) -> dict[str, Any]:
    """Returns what a folder holds in the form of a checkpoint: settings and weights, no state of a training.

    Raises:
        ValueError: a file is missing or damaged, no trained module of ours, or weights that are not finite.
    """
    config = folder / CONFIG_FILE
    kind = kind_of_settings(read_json(config, "config", "what save_trained wrote")) if config.is_file() else ""
    if kind is None:
        raise FileError(f"'{folder}': found no trained module of ours, expected a folder of save_trained")
    stored = ModuleFormat(kind, "", "", name=kind or "module").read_folder(folder)
    return {KIND: kind, "state_dict": stored.weights, "hyper_parameters": stored.settings, WEIGHTS_ALONE: True}


def missing_file(folder: Path) -> str | None:
    """Returns the name of the first file that a folder of a trained module lacks; None where it has both."""
    return next((name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()), None)


def in_float16(weights: Mapping[str, Tensor], kind: str, folder: str | Path) -> dict[str, Tensor]:
    """Returns copies of weights in half precision; whole numbers stay as they are.

    Args:
        weights: by name.
        kind: whose weights, for the error: "generator".
        folder: where they are to be written, for the error.

    Raises:
        ValueError: a weight is not finite in float16.
    """
    tensors = {n: tensor.detach().half() if tensor.is_floating_point() else tensor for n, tensor in weights.items()}
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ValueError(
            f"{kind}: {len(broken)} weights are not finite in float16, '{broken[0]}' the first; expected finite "
            f"ones to write into '{folder}' (take an earlier checkpoint)"
        )
    return tensors


def write_folder(folder: Path, kind: str, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Writes a trained module into a folder, made if missing: each file whole or not at all, the weights first.

    Args:
        folder: where.
        kind: of the module.
        settings: plain types.
        weights: as they are to be stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS_FILE, weights)
    write_json(folder / CONFIG_FILE, {KIND: kind, **settings})


def with_average(weights: Mapping[str, Tensor], average: Mapping[str, Any] | None, submodule: str) -> dict[str, Tensor]:
    """Returns weights by name with their moving average in place.

    Args:
        weights: state of a whole module.
        average: state of a :class:`synfer.optimisation.ema.ParameterEMA`; None = there is none.
        submodule: name of the part that was averaged.
    """
    if average is None or not average["num_updates"]:
        return dict(weights)
    return {**weights, **{f"{submodule}.{name}": tensor for name, tensor in average["average"].items()}}
