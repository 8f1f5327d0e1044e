"""Weights of a backbone alone, out of whatever has trained it: where a probe or a fine-tuning begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from lightning_modules.classifier_file import ClassifierFile
from lightning_modules.training_provenance import TrainingProvenance
from synfer.foundation.checkpoint_file import check_finite, find_checkpoint
from synfer.foundation.file_reading import FileError
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.module_file import ModuleFormat, kind_of
from synfer.foundation.safetensors_file import read_safetensors
from synfer.foundation.validate import check_same_settings
from synfer.networks.classifier_head import network_inside

PRETRAINING_FILE = ModuleFormat("pretraining", "backbone", "FacePretraining", entry="face_pretraining")

_FORMATS = {"pretraining": PRETRAINING_FILE, "classifier": ClassifierFile.file_format}
_EXPECTED = (
    "a checkpoint or run folder of FacePretraining or ExpressionClassifier, a folder of save_trained, or a file of "
    "safetensors"
)
STORED = "stored"
"""As a classifier's ``backbone``: the network that its ``backbone_weights`` are of."""

_NETWORK = ("backbone", "backbone_kwargs", "stem", "image_size", "in_channels")
_DECIDING = ("backbone", "stem", "in_channels")
"""Settings that decide what the weights mean, whether or not their shapes show it."""


@dataclass(frozen=True)
class StoredBackbone:
    """A backbone's weights and where they come from.

    Attributes:
        path: as it was given.
        kind: "pretraining", "classifier" or "safetensors".
        weights: by their names in the backbone, the averaged ones where there are any.
        settings: of the module that trained them; {} of bare safetensors.
        trained_on: content hashes of the rows that they have learned from, int64, sorted; None = not recorded.
    """

    path: str
    kind: str
    weights: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    trained_on: np.ndarray | None = None

    def source(self) -> dict[str, str]:
        """Returns path, kind and fingerprint, for records."""
        return {"path": self.path, "kind": self.kind, "fingerprint": fingerprint(sorted(self.weights.items()))}


def read_backbone(path: str, setting: str = "model.backbone_weights") -> StoredBackbone:
    """Reads the weights of a backbone; nothing in a file is executed.

    Args:
        path: a checkpoint of :class:`lightning_modules.pretraining.FacePretraining` or of an
            :class:`lightning_modules.classifier.ExpressionClassifier`, a run folder, which means its last one, a folder
            of ``save_trained``, or a file of safetensors with the backbone's own names.
        setting: that named it, for errors.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: damaged, of another kind of module, or weights that are not finite.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{setting}: found no file '{path}', expected {_EXPECTED}")
    if Path(path).suffix == ".safetensors":
        weights = read_safetensors(Path(path), setting)
        return StoredBackbone(path, "safetensors", weights)
    place = find_checkpoint(path, setting)
    kind = kind_of(place, setting)
    if kind not in _FORMATS:
        found = "something else" if kind is None else f"a model of the kind {kind}"
        raise FileError(f"{setting} '{path}': found {found}, expected {_EXPECTED}")
    stored = _FORMATS[kind].read_trained(place)
    weights = {n.removeprefix("backbone."): t for n, t in stored.weights.items() if n.startswith("backbone.")}
    if (stored.settings.get("head") or {}).get("kind", "linear") != "linear":
        weights = network_inside(weights)
    check_finite(weights, setting, path)
    trained_on = TrainingProvenance.of_file(place, ()).trained_on
    return StoredBackbone(path, str(kind), weights, dict(stored.settings), trained_on)


def with_stored(config: dict[str, Any], stored: StoredBackbone) -> dict[str, Any]:
    """Returns a classifier's settings with what its backbone's source knows better.

    The colours that the weights expect, where the settings name none; and, where the backbone is "stored", the network.

    Args:
        config: settings of the classifier.
        stored: of its ``backbone_weights``.

    Raises:
        ValueError: the network is to be that of the source, which does not say.
    """
    colours = {name: config[name] or stored.settings.get(name) for name in ("mean", "std")}
    if config["backbone"] != STORED:
        return {**config, **colours}
    if not stored.settings:
        raise FileError(
            f"model.backbone: found '{STORED}' beside the bare weights '{stored.path}', expected a network's name"
        )
    return {**config, **colours, **{name: stored.settings[name] for name in _NETWORK}}


def load_backbone(
    network: nn.Module, stored: StoredBackbone, config: Mapping[str, Any], setting: str = "model.backbone_weights"
) -> None:
    """Puts stored weights into a timm network; its last layer, which is another task's, stays as it is.

    Args:
        network: with or without a last layer.
        stored: from :func:`read_backbone`.
        config: settings of the network: backbone, stem, in_channels.
        setting: for errors.

    Raises:
        ValueError: another network by its settings, or weights missing, left over or of another shape.
    """
    check_same_settings(stored.settings, dict(config), _DECIDING)
    heads = _names_of_head(network)
    own = {name: tensor for name, tensor in network.state_dict().items() if name not in heads}
    given = {name: tensor for name, tensor in stored.weights.items() if not _is_of_head(name, network)}
    missing, left_over = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    if missing or left_over:
        odd = f"found no '{missing[0]}'" if missing else f"found '{left_over[0]}'"
        raise FileError(
            f"{setting} '{stored.path}': {odd} ({len(missing)} weights missing, {len(left_over)} left over), expected "
            f"those of '{config['backbone']}' and no others (the same backbone and backbone_kwargs)"
        )
    other = [name for name, tensor in own.items() if given[name].shape != tensor.shape]
    if other:
        found, wanted = ("×".join(map(str, t[other[0]].shape)) for t in (given, own))
        raise FileError(
            f"{setting} '{stored.path}': found '{other[0]}' of shape {found}, expected {wanted} "
            f"({len(other)} of {len(own)} weights differ: other backbone_kwargs, image_size or stem)"
        )
    network.load_state_dict(given, strict=False)


def _head_paths(network: Any) -> list[str]:
    """Returns the paths of a network's last layers, also where there is none (an identity) now."""
    found = network.get_classifier()
    heads = list(found) if isinstance(found, (tuple, list, nn.ModuleList)) else [found]
    paths = [path for path, module in network.named_modules() if any(module is head for head in heads)]
    # timm says under which name the last layer lies of a network that was built without one.
    named = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    return [path for path in {*paths, *([named] if isinstance(named, str) else named)} if path]


def _is_of_head(name: str, network: nn.Module) -> bool:
    return any(name.startswith(f"{path}.") for path in _head_paths(network))


def _names_of_head(network: nn.Module) -> set[str]:
    return {name for name in network.state_dict() if _is_of_head(name, network)}
