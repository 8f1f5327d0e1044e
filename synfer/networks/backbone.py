"""Image backbones from timm, with a stem that suits small faces."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from synfer.foundation.checkpoint_file import check_finite
from synfer.foundation.file_reading import did_you_mean, one_line
from synfer.foundation.validate import check_setting

Stem = Literal["auto", "small", "half", "native"]

SMALL_IMAGE = 64
"""Up to this size in pixels ``stem="auto"`` means the small stem."""

_STEM_POOLS = ("maxpool", "pool0", "features.pool0", "stem.pool")


def build_backbone(
    name: str,
    num_classes: int,
    *,
    image_size: int = 48,
    in_channels: int = 3,
    drop_rate: float = 0.0,
    stem: Stem = "auto",
    kwargs: dict[str, Any] | None = None,
    pretrained: bool = False,
    pretrained_path: str | None = None,
) -> nn.Module:
    """Builds a timm network that maps normalised images (B, C, H, W) to logits (B, K).

    ImageNet stems shrink an image four times before the first block; of a 48-pixel face 12 × 12 cells would be left.
    The small stem keeps the resolution: its first convolution is at most 3 × 3 with stride 1, and the pooling of the
    stem goes. A kernel of pretrained weights that is too large is cropped to its centre. The half stem halves it at
    once: the first convolution stays as it is, and what shrinks the image further in the stem goes.

    Args:
        name: any name that timm knows ("resnet18", "ese_vovnet39b", …).
        num_classes: K.
        image_size: side of the input in pixels; decides what ``stem="auto"`` means.
        in_channels: C, 1 or 3.
        drop_rate: dropout before the head, in [0, 1).
        stem: "small", "half", "native" (as timm builds it), or "auto" (small up to 64 pixels where the network can).
        kwargs: further arguments of the timm network, such as ``channels``.
        pretrained: whether timm fetches its weights from the network.
        pretrained_path: a file of weights in timm's layout (.safetensors or .pth); a head of another size is left out.

    Raises:
        FileNotFoundError: no file at ``pretrained_path``.
        ValueError: unknown network or stem, arguments or weights that do not fit, weights that cannot be fetched, a
            small or half stem where there is none, or a network that cannot take images of this size.
    """
    import timm  # seconds to import: only when a network is really built

    if stem not in get_args(Stem):
        raise ValueError(f"model.stem: found '{stem}', expected one of {', '.join(get_args(Stem))}")
    overlay: dict[str, Any] = {}
    if pretrained_path is not None:
        overlay["file"] = pretrained_path
        classes = _classes_in_file(name, pretrained_path)
        if classes is not None:
            overlay["num_classes"] = classes
    arguments: dict[str, Any] = dict(kwargs or {})
    clash = sorted(set(arguments) & {"num_classes", "in_chans", "drop_rate", "pretrained"})
    if clash:
        raise ValueError(f"model.backbone_kwargs: '{clash[0]}' is set by the classifier itself, leave it out")
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models(), 3)
        raise ValueError(f"model.backbone: timm knows no network '{name}'{hint}")
    try:
        network = timm.create_model(
            name,
            pretrained=pretrained or pretrained_path is not None,
            pretrained_cfg_overlay=overlay or None,
            num_classes=num_classes,
            in_chans=in_channels,
            drop_rate=drop_rate,
            **arguments,
        )
    except (TypeError, KeyError, AssertionError) as error:
        raise ValueError(f"model.backbone_kwargs do not fit '{name}': {one_line(error)}") from error
    except Exception as error:  # the hub client raises its own types where there is no network
        if pretrained_path is not None:
            raise ValueError(f"weights in {pretrained_path} do not fit '{name}': {one_line(error)}") from error
        if pretrained:
            raise ValueError(
                f"model.pretrained: the weights of '{name}' cannot be fetched, give model.pretrained_path instead "
                f"({one_line(error)})"
            ) from error
        raise
    shape = (1, in_channels, image_size, image_size)
    if stem == "small":
        _shrink_stem(network, name, required=True)
    elif stem == "half":
        _halve_stem(network, name)
    elif stem == "auto" and image_size <= SMALL_IMAGE:
        changed = copy.deepcopy(network)
        _shrink_stem(changed, name, required=False)
        if _refusal(changed, shape) is None:
            return changed
    reason = _refusal(network, shape)
    if reason is not None:
        found = f"{in_channels}×{image_size}×{image_size}"
        raise ValueError(
            f"model.backbone: '{name}' with stem: {stem} cannot take {found}: {reason}; "
            "expected a network for images of this size, another image_size or stem, or backbone_kwargs that set the "
            f"size, as {{img_size: {image_size}}} does where the network knows it"
        )
    return network


def normalisation(network: nn.Module) -> tuple[list[float], list[float]]:
    """Returns the mean and standard deviation per channel that the network's weights expect, for images in [0, 1]."""
    config: dict[str, Any] = getattr(network, "pretrained_cfg", {}) or {}
    return list(config.get("mean", (0.485, 0.456, 0.406))), list(config.get("std", (0.229, 0.224, 0.225)))


def averaged_for_grey(values: Sequence[float], channels: int) -> list[float]:
    """Returns numbers per channel: three become their mean for a network of one channel, others stay as they are."""
    return [sum(values) / 3] if channels == 1 and len(values) == 3 else list(values)


@torch.no_grad()
def _refusal(network: nn.Module, shape: tuple[int, ...]) -> str | None:
    """Returns why the network cannot take images of this shape (1, C, H, W), None where it can."""
    was_training = network.training
    try:
        network.eval()(torch.zeros(shape))
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        return one_line(error)
    finally:
        network.train(was_training)
    return None


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Returns the stem's first convolution and its name; None where it cuts patches, as ViT and ConvNeXt do."""
    found = next(((path, m) for path, m in network.named_modules() if isinstance(m, nn.Conv2d)), None)
    # Stride and kernel the same: there is no overlap to give up.
    is_patch = found is not None and found[1].stride == found[1].kernel_size and found[1].stride != (1, 1)
    return None if is_patch else found


def _halve_stem(network: nn.Module, name: str) -> None:
    found = _first_convolution(network)
    if found is None or found[1].stride != (2, 2):
        raise ValueError(f"model.stem: '{name}' has no convolution that halves to begin with, use stem: native")
    parent = found[0].rpartition(".")[0]  # "" where it lies beside the stages
    reading = _reading_the_image(network, *found)
    for path, module in network.named_modules():
        in_stem = path.startswith("stem.") or (parent != "" and path.rpartition(".")[0] == parent)
        if in_stem and module not in reading and isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    _drop_stem_pools(network)


def _reading_the_image(network: nn.Module, path: str, first: nn.Conv2d) -> list[nn.Conv2d]:
    """Returns the first convolution and those beside it, as in RepVGG's stem of several branches."""
    stem = network.get_submodule(path.partition(".")[0])
    return [m for m in stem.modules() if isinstance(m, nn.Conv2d) and m.in_channels == first.in_channels]


def _shrink_stem(network: nn.Module, name: str, required: bool) -> None:
    found = _first_convolution(network)
    if found is None:
        if required:
            raise ValueError(f"model.stem: '{name}' has no convolutional stem to make small, use stem: native")
        return
    path, old = found
    for convolution in _reading_the_image(network, path, old):
        convolution.stride = (1, 1)
    if isinstance(old.padding, str) or max(old.kernel_size) > 3:
        kernel = [min(3, side) for side in old.kernel_size]
        new = nn.Conv2d(
            old.in_channels,
            old.out_channels,
            (kernel[0], kernel[1]),
            stride=1,
            padding=(kernel[0] // 2, kernel[1] // 2),
            groups=old.groups,
            bias=old.bias is not None,
        )
        with torch.no_grad():
            top, left = ((side - k) // 2 for side, k in zip(old.kernel_size, kernel, strict=True))
            centre = old.weight[:, :, top : top + kernel[0], left : left + kernel[1]]
            # The same variance of the output as before, whether the weights are random or trained.
            new.weight.copy_(centre * (old.weight.norm() / centre.norm().clamp_min(1e-12)))
            if old.bias is not None and new.bias is not None:
                new.bias.copy_(old.bias)
        network.set_submodule(path, new)
    _drop_stem_pools(network)


def _drop_stem_pools(network: nn.Module) -> None:
    for pool in _STEM_POOLS:
        parent = network
        for part in pool.split("."):
            parent = getattr(parent, part, None)  # type: ignore[assignment]
        if parent is not None:
            network.set_submodule(pool, nn.Identity())


def _classes_in_file(name: str, path: str) -> int | None:
    """Number of classes of the head stored in a file of weights, None where it holds no head."""
    import timm
    from timm.models import load_state_dict

    if not Path(path).is_file():
        raise FileNotFoundError(f"model.pretrained_path: no file at {path}, expected weights of '{name}'")
    config = timm.get_pretrained_cfg(name)
    head = getattr(config, "classifier", None)
    try:
        state = load_state_dict(path, use_ema=False)
    except Exception as error:  # torch and safetensors raise a dozen different types for a file that is no weights
        raise ValueError(f"model.pretrained_path: {path} cannot be read as weights: {one_line(error)}") from error
    heads = [head] if isinstance(head, str) else list(head or ())
    check_finite(state, "model.pretrained_path", path)
    for key in heads:
        if f"{key}.weight" in state:
            return int(state[f"{key}.weight"].shape[0])
    return None


def channel_values(name: str, values: Sequence[float], channels: int) -> Tensor:
    """Returns float32 (1, C, 1, 1) of one number for each channel; of colours, for grey, their mean.

    Args:
        name: of the setting, for the error: "mean".
        values: C numbers, or three for one channel.
        channels: C.

    Raises:
        ValueError: as many numbers as channels are expected.
    """
    values = averaged_for_grey(values, channels)
    check_setting(len(values) == channels, name, values, f"{channels} numbers")
    return torch.tensor(values, dtype=torch.float32).view(1, channels, 1, 1)
