"""Whether stored weights are those of the network that is to take them, where their shapes do not tell."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig

from synfer.foundation.file_reading import FileError
from synfer.foundation.renamed_settings import present_settings
from synfer.networks.diffusion import SMALL_SCHEDULER, SMALL_TEXT_ENCODER, SMALL_UNET
from synfer.networks.latent_codec import SpaceToDepthCodec
from synfer.networks.network_settings import NetworkSettings


def check_stored_network(own: Mapping[str, Any], stored: Mapping[str, Any], named: str) -> None:
    """Refuses the weights of a generator with another network, codec or noise schedule, whose faces would be noise.

    A generator on a ``base`` is not compared: that brings its own.

    Args:
        own: settings of the generator that is to take the weights.
        stored: settings that the weights were trained with.
        named: where they come from, for the error.

    Raises:
        ValueError: names the first setting that differs.
    """
    before = present_settings("diffusion", stored)
    if own["base"] is not None or before.get("base") is not None or "network" not in before:
        return
    theirs, ours = _whole(before["network"]), _whole(own["network"])
    for part in theirs:
        if theirs[part] == ours[part]:
            continue
        found, expected, name = theirs[part], ours[part], part
        if isinstance(found, dict) and isinstance(expected, dict):
            key = next(key for key in sorted({*found, *expected}) if found.get(key) != expected.get(key))
            found, expected, name = found.get(key), expected.get(key), f"{part}.{key}"
        raise FileError(
            f"{named}: its network has {name} {found}, found model.network.{name} {expected} in the settings of this "
            "run, expected those of its training (config.yaml in its run folder)"
        )


def _whole(network: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of a network with all that they mean, in plain types."""
    parts = {**vars(NetworkSettings()), **network}
    meant = {
        "unet": {**_defaults(UNet2DConditionModel), **SMALL_UNET},
        "text_encoder": {**CLIPTextConfig().to_dict(), **SMALL_TEXT_ENCODER},
        "scheduler": {**_defaults(DDIMScheduler), **SMALL_SCHEDULER},
        "codec_config": _defaults(SpaceToDepthCodec) if parts["codec"] == "space_to_depth" else {},
    }
    for part, without in meant.items():
        parts[part] = {**without, **(parts[part] or {})}
    return {name: _plain(part) for name, part in parts.items()}


def _defaults(of: type) -> dict[str, Any]:
    """Returns the arguments of a class that have one."""
    found = inspect.signature(of).parameters.values()
    return {a.name: a.default for a in found if a.default is not inspect.Parameter.empty}


def _plain(value: Any) -> Any:
    """Lists in place of tuples, as in files."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
