"""Where a pretrained backbone lies that is more than a name: a folder in timm's layout, or a model of the Hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synfer.foundation.file_reading import FileError, one_line
from synfer.foundation.json_file import read_json

HUB = ("hf_hub:", "hf-hub:")
FOLDER = "local-dir:"
_FILES = ("config.json", "model.safetensors")
_LAYOUT = "config.json and model.safetensors as timm's save_for_hf writes them"


@dataclass(frozen=True)
class BackboneSource:
    """A pretrained network.

    Attributes:
        architecture: its name in timm.
        weights: file of its weights.
        arguments: further arguments of the network.
        mean: per channel, of images in [0, 1], that the weights expect; None = not said.
        std: likewise.
    """

    architecture: str
    weights: str
    arguments: dict[str, Any] = field(default_factory=dict)
    mean: list[float] | None = None
    std: list[float] | None = None


def find_backbone(name: str) -> BackboneSource | None:
    """Returns the network that a name stands for; None where it is a plain name of timm.

    Weights are read from safetensors alone: a pickle could run code. ``HF_HUB_OFFLINE=1`` keeps it to the cache.

    Args:
        name: "resnet18"; "hf_hub:timm/resnet18.a1_in1k"; or a folder, with or without "local-dir:" before it.

    Raises:
        FileNotFoundError: no such folder, or a model of the Hub that cannot be had.
        ValueError: another layout.
    """
    if name.startswith(HUB):
        return _read(_from_hub(name), name)
    folder = Path(name.removeprefix(FOLDER))
    if folder.is_dir():
        return _read(folder, name)
    if name.startswith(FOLDER) or "/" in name:
        raise FileNotFoundError(
            f"model.backbone: found no folder '{folder}', expected a name of timm, hf_hub:<owner>/<model>, or a folder "
            f"with {_LAYOUT}"
        )
    return None


def with_source(config: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Returns a classifier's settings as they are kept, so that nobody needs the source again, and its weights.

    Args:
        config: settings with ``backbone``, ``backbone_kwargs``, ``pretrained_path``, ``mean``, ``std``.

    Returns:
        The settings with a plain name of timm as backbone and what the source says beside it, and the file of weights
        to start from; None = none.
    """
    source = find_backbone(config["backbone"])
    if source is None:
        return config, config["pretrained_path"]
    known = {
        "backbone": source.architecture,
        "backbone_kwargs": {**source.arguments, **(config["backbone_kwargs"] or {})},
        "mean": config["mean"] or source.mean,
        "std": config["std"] or source.std,
    }
    return {**config, **known}, config["pretrained_path"] or source.weights


def _read(folder: Path, name: str) -> BackboneSource:
    missing = [file for file in _FILES if not (folder / file).is_file()]
    if missing:
        raise FileError(f"model.backbone '{name}': found no {missing[0]} in '{folder}', expected {_LAYOUT}")
    config = read_json(folder / _FILES[0], "model.backbone", "what timm's save_for_hf wrote")
    pretrained = config.get("pretrained_cfg") or {}
    if not isinstance(config.get("architecture"), str):
        raise FileError(f"model.backbone '{name}': found no 'architecture' in its config.json, expected {_LAYOUT}")
    arguments = {k: v for k, v in (config.get("model_args") or {}).items() if k not in ("num_classes", "in_chans")}
    numbers = [None if not pretrained.get(key) else [float(v) for v in pretrained[key]] for key in ("mean", "std")]
    return BackboneSource(config["architecture"], str(folder / _FILES[1]), arguments, *numbers)


def _from_hub(name: str) -> Path:
    """Returns the folder in the cache with the two files of a model of the Hub."""
    from huggingface_hub import constants, hf_hub_download

    hub_id, _, revision = name.partition(":")[2].partition("@")
    try:
        files = [hf_hub_download(hub_id, file, revision=revision or None) for file in _FILES]
    except Exception as error:  # the client, httpx, ssl and sockets each raise their own
        reason = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else one_line(error)[:160]
        raise FileNotFoundError(
            f"model.backbone '{name}': found no copy in {constants.HF_HUB_CACHE} and cannot fetch it ({reason}), "
            f"expected network once (hf download {hub_id}), or a folder with {_LAYOUT}"
        ) from error
    return Path(files[0]).parent
