"""Whoever may vote on a face's label, loaded from a checkpoint, a folder or a small JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.random import fork_rng

from lightning_modules.training_provenance import TrainingProvenance
from synfer.foundation.checkpoint_file import find_checkpoint, read_checkpoint
from synfer.foundation.file_reading import FileError, reading
from synfer.foundation.json_file import read_json
from synfer.foundation.module_file import CONFIG_FILE, KIND
from synfer.labels.voters import VOTERS, Voter, VoterKind

_EXPECTED = (
    "a checkpoint of ExpressionClassifier or LabelAnnotator, a timm or CLIP folder, or a .json file that names one"
)


@dataclass(frozen=True)
class LoadedVoter:
    """A loaded voter, and what is known of its training.

    Attributes:
        name: the path that it was loaded from.
        network: in evaluation mode, gradients off.
        trained_on: content hashes of its training rows, int64, sorted; None = a network from elsewhere. Of an annotator
            these are the rows of its head alone.
        generator: what the generator was trained on that an annotator reads; None = no annotator.
        recorded: whether it is known what it was trained on; False for old checkpoints, and folders, of this project.
    """

    name: str
    network: Voter
    trained_on: np.ndarray | None = None
    recorded: bool = True
    generator: TrainingProvenance | None = None


def load_voter(path: str | Path, map_location: str | torch.device = "cpu") -> LoadedVoter:
    """Loads a voter.

    Args:
        path: a checkpoint (``.ckpt``) of an :class:`ExpressionClassifier` or a :class:`LabelAnnotator`, or a run
            folder, which means its last one; a folder of a classifier's ``save_trained``; a folder with a timm network
            (``config.json`` with ``architecture``) or a CLIP model (``model_type`` "clip"); or a ``.json`` file
            {"path": …} with more to say: "generator" (where an annotator's generator lies now) or "prompts" (for CLIP,
            expression → captions). Paths in it are relative to it.
        map_location: device.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: nothing that can vote, or more said in the file than this kind of voter supports.
    """
    name, place = str(path), Path(path)
    options: dict[str, Any] = {}
    if place.suffix == ".json" and place.is_file():
        place, options = _named_in(place)
    place = find_checkpoint(place, f"voter '{name}'")
    if not place.exists():
        raise FileNotFoundError(f"voter '{name}': no such file or folder '{place}', expected {_EXPECTED}")
    found = _config(place) if place.is_dir() else _checkpoint(place, name)
    kind = next((kind for kind in VOTERS if kind.is_mine(place, found)), None)
    if kind is None and place.is_dir():
        raise ValueError(f"voter '{place}': found a folder without a config of timm or CLIP, expected {_EXPECTED}")
    if kind is None:
        raise ValueError(f"voter '{name}': found another model's checkpoint, expected {_EXPECTED}")
    _refuse_unsupported(name, options, kind)
    with reading("voter", place, _EXPECTED), fork_rng(devices=[]):  # a training beside it must not be disturbed
        network = kind.load(place, map_location, options.get(kind.option or ""))
        if place.is_dir():
            return LoadedVoter(name, network, recorded=KIND not in found)  # folders of ours hold weights alone
        own = TrainingProvenance.of_checkpoint(dict(found), network.label_space).trained_on
    return LoadedVoter(name, network, own, own is not None, getattr(network, "generator_data", None))


def _named_in(file: Path) -> tuple[Path, dict[str, Any]]:
    """Returns the path that a ``.json`` file names, and what else it says."""
    options = read_json(file, "voter", _EXPECTED)
    known = ["path", *sorted(kind.option for kind in VOTERS if kind.option is not None)]
    if "path" not in options or not set(options) <= set(known):
        raise ValueError(f"voter '{file}': found keys {sorted(options)}, expected {', '.join(known)}")
    if options.get("generator"):
        options["generator"] = str(file.parent / options["generator"])
    return file.parent / str(options.pop("path")), options


def _config(folder: Path) -> Mapping[str, Any]:
    file = folder / CONFIG_FILE
    return read_json(file, "voter", _EXPECTED) if file.is_file() else {}


def _checkpoint(file: Path, name: str) -> Mapping[str, Any]:
    try:
        content = read_checkpoint(file, "voter", mmap=True)
    except ValueError as error:
        raise FileError(f"voter '{name}' cannot be read ({error}), expected {_EXPECTED}") from error
    return content if isinstance(content, dict) else {}


def _refuse_unsupported(name: str, options: Mapping[str, Any], kind: VoterKind) -> None:
    unheard = sorted(key for key, value in options.items() if key != kind.option and value)
    if unheard:
        listener = next(other.name for other in VOTERS if other.option == unheard[0])
        raise ValueError(f"voter '{name}': found '{unheard[0]}', which only {listener} supports, leave it out")
