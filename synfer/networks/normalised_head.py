"""A last layer that knows directions alone: logits are cosines between features and classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NormalisedHead(nn.Linear):
    """Logits that are ``scale`` times the cosine between the features and the weights of each class; no bias.

    With a plain layer a network could meet any margin by longer weights (Cao et al. 2019, arXiv 1906.07413; the
    normalisation is that of Wang et al. 2018, arXiv 1801.05599).

    Args:
        in_features: width of the features.
        out_features: K classes.
        scale: > 0.
    """

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """Returns logits float32 (…, K) in [−scale, scale] of features (…, F), in full precision under autocast too."""
        with torch.autocast(input.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(input.float(), dim=-1), F.normalize(self.weight.float(), dim=-1))


def normalise_head(network: nn.Module, name: str, scale: float) -> None:
    """Puts a :class:`NormalisedHead` in place of the last linear layer of a timm network.

    Args:
        network: the network.
        name: of it, for the error.
        scale: of the logits.

    Raises:
        ValueError: it does not end with one linear layer.
    """
    get_classifier = getattr(network, "get_classifier", None)
    head = get_classifier() if callable(get_classifier) else None
    place = next((path for path, module in network.named_modules() if module is head), None)
    if not isinstance(head, nn.Linear) or place is None:
        raise ValueError(
            f"model.loss.kind: found 'ldam' with the backbone '{name}', whose last layer is "
            f"{type(head).__name__}, expected one that ends with a linear layer, to be normalised"
        )
    network.set_submodule(place, NormalisedHead(head.in_features, head.out_features, scale))
