"""Whoever may vote on a face's label, loaded from a checkpoint, a folder or a small JSON file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.random import fork_rng

from lightning_modules.annotator import LabelAnnotator
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.training_provenance import TrainingProvenance
from synfer.foundation.checkpoint_file import find_checkpoint, read_checkpoint
from synfer.foundation.file_reading import FileError, reading
from synfer.foundation.json_file import read_json
from synfer.networks.external_classifiers import ClipVoter, TimmVoter

_KINDS = "a checkpoint of ExpressionClassifier or LabelAnnotator, a timm or CLIP folder, or a .json file that names one"


class VoterNetwork(Protocol):
    """What a voter must have; :class:`ExpressionClassifier` has it."""

    label_space: tuple[str, ...]

    def predict_probabilities(self, image: Tensor) -> Tensor: ...

    def weights_fingerprint(self) -> str: ...

    def to(self, device: Any) -> Any: ...


@dataclass(frozen=True)
class Voter:
    """A loaded voter.

    Attributes:
        name: the path that it was loaded from.
        network: in evaluation mode, gradients off.
        trained_on: content hashes of its training rows, int64, sorted; None = a network from elsewhere. Of an annotator
            these are the rows of its head alone.
        generator: what the generator was trained on that an annotator reads; None = no annotator.
        recorded: whether it is known what it was trained on; False for old checkpoints of this project.
    """

    name: str
    network: VoterNetwork
    trained_on: np.ndarray | None = None
    recorded: bool = True
    generator: TrainingProvenance | None = None


def load_voter(path: str | Path, map_location: str | torch.device = "cpu") -> Voter:
    """Loads a voter.

    Args:
        path: a checkpoint (``.ckpt``) of an :class:`ExpressionClassifier` or a :class:`LabelAnnotator`, or a run
            folder, which means its last one; a folder with a
            timm network (``config.json`` with ``architecture``) or a CLIP model (``model_type`` "clip"); or a ``.json``
            file {"path": …} with more to say: "generator" (where an annotator's generator lies now) or "prompts" (for
            CLIP, expression → captions). Paths in it are relative to it.
        map_location: device.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: nothing that can vote, or more said in the file than this kind of voter listens to.
    """
    name = str(path)
    place = Path(path)
    options: dict[str, Any] = {}
    if place.suffix == ".json" and place.is_file():
        options = read_json(place, "voter", _KINDS)
        unknown = sorted(set(options) - {"path", "generator", "prompts"})
        if unknown or "path" not in options:
            raise ValueError(f"voter '{name}': found keys {sorted(options)}, expected path, generator, prompts")
        base = place.parent
        place = base / str(options["path"])
        if options.get("generator"):
            options["generator"] = str(base / options["generator"])
    place = find_checkpoint(place, f"voter '{name}'")
    if place.is_dir():
        voter = _load_folder(place, options)
        _refuse_unsupported(name, options, "prompts" if isinstance(voter, ClipVoter) else None)
        return Voter(name, voter.eval().requires_grad_(False).to(map_location))
    if not place.is_file():
        raise FileNotFoundError(f"voter '{name}': no such file or folder '{place}', expected {_KINDS}")
    try:
        checkpoint = read_checkpoint(place, "voter", mmap=True)
    except ValueError as error:
        raise FileError(f"voter '{name}' cannot be read ({error}), expected {_KINDS}") from error
    keys = set(checkpoint) if isinstance(checkpoint, dict) else set()
    network: VoterNetwork
    if "label_annotator" in keys:
        network = LabelAnnotator.load_trained(place, map_location, generator=options.get("generator"))
    elif "expression_classifier" in keys:
        network = ExpressionClassifier.load_trained(place, map_location)
    else:
        raise ValueError(f"voter '{name}': found another model's checkpoint, expected {_KINDS}")
    _refuse_unsupported(name, options, "generator" if isinstance(network, LabelAnnotator) else None)
    with reading("voter", place, _KINDS):
        own = TrainingProvenance.of_checkpoint(checkpoint, network.label_space).trained_on
    generator = network.generator_data if isinstance(network, LabelAnnotator) else None
    return Voter(name, network, own, recorded=own is not None, generator=generator)


def _refuse_unsupported(name: str, options: dict[str, Any], heard: str | None) -> None:
    unheard = sorted(key for key, value in options.items() if key not in ("path", heard) and value)
    if unheard:
        kinds = {"generator": "an annotator", "prompts": "a CLIP model"}
        raise ValueError(
            f"voter '{name}': found '{unheard[0]}', which only {kinds[unheard[0]]} listens to, leave it out"
        )


@fork_rng(devices=[])  # building networks draws random numbers, and must not disturb a training beside
def _load_folder(folder: Path, options: dict[str, Any]) -> TimmVoter | ClipVoter:
    file = folder / "config.json"
    config = read_json(file, "voter", _KINDS) if file.is_file() else {}
    with reading("voter", folder, _KINDS):
        if config.get("model_type") == "clip":
            return ClipVoter(folder, options.get("prompts"))
        if "architecture" in config:
            return TimmVoter(folder)
    raise ValueError(f"voter '{folder}': found a folder without a config of timm or CLIP, expected {_KINDS}")
