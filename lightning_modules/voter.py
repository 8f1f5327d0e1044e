"""Whoever may vote on a face's label, loaded from a checkpoint, a folder or a small JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.random import fork_rng

from lightning_modules.annotator import LabelAnnotator
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.networks.outside_voters import ClipVoter, TimmVoter
from lightning_modules.training_data import TrainingData

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
    generator: TrainingData | None = None


def load_voter(path: str | Path, map_location: str | torch.device = "cpu") -> Voter:
    """Loads a voter.

    Args:
        path: a checkpoint (``.ckpt``) of an :class:`ExpressionClassifier` or a :class:`LabelAnnotator`; a folder with a
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
        options = _read_json(place)
        unknown = sorted(set(options) - {"path", "generator", "prompts"})
        if unknown or "path" not in options:
            raise ValueError(f"voter '{name}': found keys {sorted(options)}, expected path, generator, prompts")
        base = place.parent
        place = base / options["path"]
        if options.get("generator"):
            options["generator"] = str(base / options["generator"])
    if place.is_dir():
        voter = _load_folder(place, options)
        _check_heard(name, options, "prompts" if isinstance(voter, ClipVoter) else None)
        return Voter(name, voter.eval().requires_grad_(False).to(map_location))
    if not place.is_file():
        raise FileNotFoundError(f"voter '{name}': no such file or folder '{place}', expected {_KINDS}")
    try:
        checkpoint = torch.load(place, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zip, pickle and torch each raise their own types here
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ValueError(f"voter '{name}' cannot be read ({reason}), expected {_KINDS}") from error
    keys = set(checkpoint) if isinstance(checkpoint, dict) else set()
    network: VoterNetwork
    if "label_annotator" in keys:
        network = LabelAnnotator.load_trained(place, map_location, generator=options.get("generator"))
    elif "expression_classifier" in keys:
        network = ExpressionClassifier.load_trained(place, map_location)
    else:
        raise ValueError(f"voter '{name}': found another model's checkpoint, expected {_KINDS}")
    _check_heard(name, options, "generator" if isinstance(network, LabelAnnotator) else None)
    own = TrainingData.of_checkpoint(checkpoint, network.label_space).trained_on
    generator = network.generator_data if isinstance(network, LabelAnnotator) else None
    return Voter(name, network, own, recorded=own is not None, generator=generator)


def _check_heard(name: str, options: dict[str, Any], heard: str | None) -> None:
    unheard = sorted(key for key, value in options.items() if key not in ("path", heard) and value)
    if unheard:
        kinds = {"generator": "an annotator", "prompts": "a CLIP model"}
        raise ValueError(
            f"voter '{name}': found '{unheard[0]}', which only {kinds[unheard[0]]} listens to, leave it out"
        )


@fork_rng(devices=[])  # building networks draws random numbers, and must not disturb a training beside
def _load_folder(folder: Path, options: dict[str, Any]) -> TimmVoter | ClipVoter:
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if config.get("model_type") == "clip":
        return ClipVoter(folder, options.get("prompts"))
    if "architecture" in config:
        return TimmVoter(folder)
    raise ValueError(f"voter '{folder}': found a folder without a config of timm or CLIP, expected {_KINDS}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"voter '{path}': found no readable JSON ({str(error)[:80]})") from error
    if not isinstance(found, dict):
        raise ValueError(f"voter '{path}': found {type(found).__name__}, expected a JSON object")
    return found
