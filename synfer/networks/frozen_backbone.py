"""A backbone that stays as it was pretrained, under a last layer, or a head of several, that learns."""

from __future__ import annotations

from typing import Any

from torch import nn

from synfer.foundation.validate import check_setting
from synfer.networks.classifier_head import BackboneWithHead


def freeze_all_but_head(network: nn.Module, name: str) -> None:
    """Switches off the gradients of everything but the last layer.

    Args:
        network: of timm.
        name: for the error.

    Raises:
        ValueError: it has no last layer of its own.
    """
    head = _head_of(network)
    if not list(head.parameters()):
        raise ValueError(f"model.freeze_backbone: '{name}' has no last layer with weights, expected another backbone")
    learning = [parameter for parameter in head.parameters() if parameter.requires_grad]
    network.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)


def check_worth_freezing(is_pretrained: bool) -> None:
    """Refuses to freeze random weights.

    Raises:
        ValueError: nothing has pretrained them.
    """
    check_setting(
        is_pretrained,
        "freeze_backbone",
        True,
        "pretrained weights (model.backbone=hf_hub:<owner>/<model> or a folder, model.pretrained_path or "
        "model.backbone_weights), or model.random_backbone=true for the control",
    )


def as_frozen(network: nn.Module) -> None:
    """Puts all but the last layer into evaluation mode: running statistics of frozen norms must not move."""
    training = network.training
    network.eval()
    _head_of(network).train(training)
    if isinstance(network, BackboneWithHead):
        network.keep_stream()


def _head_of(network: Any) -> nn.Module:
    if isinstance(network, BackboneWithHead):
        return network.head
    head = network.get_classifier()
    return nn.ModuleList(head) if isinstance(head, (tuple, list)) else head
