"""Where in a picture a network sees each class: class activation maps of its last features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

_Outputs = TypeVar("_Outputs")


@contextmanager
def last_features(network: nn.Module) -> Iterator[list[Tensor]]:
    """Keeps the features (B, C, H, W) of each picture that a timm network is called with, before they are pooled."""
    plain, kept = network.forward_features, []

    def keeping(picture: Tensor) -> Tensor:
        kept.append(plain(picture))  # type: ignore[operator]
        return kept[-1]

    network.forward_features = keeping  # type: ignore[assignment]
    try:
        yield kept
    finally:
        del network.forward_features  # that of its class shows again


def class_activation_maps(network: nn.Module, features: Tensor) -> Tensor:
    """Returns what each place adds to the logit of each class, float32 (B, K, H, W).

    Zhou et al. 2016, arXiv 1512.04150, equation 2.

    Args:
        network: a timm network that pools its features and ends with a linear layer.
        features: (B, C, H, W) of :func:`last_features`.
    """
    weight: Tensor = network.get_classifier().weight  # type: ignore[operator]
    with torch.autocast(features.device.type, enabled=False):
        return torch.einsum("bchw,kc->bkhw", features.float(), weight.float())


def with_mirrored_maps(
    network: nn.Module, outputs_of: Callable[[Tensor], _Outputs], image: Tensor
) -> tuple[_Outputs, Tensor, Tensor]:
    """Returns the outputs of faces, and the maps (B, K, H, W) of the faces and of their mirror images.

    Args:
        network: whose maps, one for each output of its last layer.
        outputs_of: calls it, once, on images, and returns its logits or what is made of them.
        image: (B, 3, H, W).
    """
    with last_features(network) as features:
        outputs = outputs_of(image)
        outputs_of(image.flip(-1))
    return outputs, class_activation_maps(network, features[0]), class_activation_maps(network, features[1])


@torch.no_grad()
def check_has_maps(network: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Checks that a network has class activation maps.

    Args:
        network: the network.
        name: of it, for the error.
        shape: of one picture, (1, C, H, W).

    Raises:
        ValueError: its last layer is not linear, or does not read pooled features.
    """
    head = network.get_classifier() if hasattr(network, "forward_features") else None  # type: ignore[operator]
    found = type(head).__name__
    if isinstance(head, nn.Linear):
        was_training = network.training
        features = network.eval().forward_features(torch.zeros(shape))  # type: ignore[operator]
        network.train(was_training)
        if isinstance(features, Tensor) and features.ndim == 4 and features.shape[1] == head.in_features:
            return
        found = f"features {tuple(getattr(features, 'shape', ()))}"
    raise ValueError(
        f"model.loss.consistency: found {found} at the end of the backbone '{name}', expected a map of features that "
        "is pooled and read by a linear layer"
    )
