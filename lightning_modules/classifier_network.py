"""The network of a classifier as its settings describe it: where its weights begin, and what of it learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_modules.backbone_weights import StoredBackbone, load_backbone
from synfer.labels.long_tail_losses import LossSettings
from synfer.networks.backbone import build_backbone
from synfer.networks.channels_last import to_channels_last
from synfer.networks.classifier_head import BackboneWithHead, ClassifierHeadSettings
from synfer.networks.frozen_backbone import as_frozen, freeze_all_but_head
from synfer.networks.normalised_head import normalise_head


def build_classifier_network(
    config: Mapping[str, Any],
    stored: StoredBackbone | None,
    outputs: int,
    shape: tuple[int, int],
    pretrained_path: str | None,
    loss: LossSettings,
    head: ClassifierHeadSettings,
) -> nn.Module:
    """Returns the network, from normalised images (B, C, s, s) to outputs (B, K).

    Args:
        config: settings of an :class:`lightning_modules.classifier.ExpressionClassifier`, by name.
        stored: where its backbone begins; None = as ``pretrained`` and ``pretrained_path`` say.
        outputs: K.
        shape: C and s.
        pretrained_path: file of weights in timm's layout; None = none.
        loss: whose last layer may be another one.
        head: what reads the backbone's maps.

    Raises:
        ValueError: a network that cannot be built, or weights of another one.
    """
    name, (channels, side) = config["backbone"], shape
    network = build_backbone(
        name,
        outputs,
        image_size=side,
        in_channels=channels,
        drop_rate=config["drop_rate"],
        stem=config["stem"],
        kwargs=config["backbone_kwargs"],
        pretrained=config["pretrained"],
        pretrained_path=pretrained_path,
    )
    if stored is not None and not config["random_backbone"]:
        load_backbone(network, stored, config)
    if head.kind != "linear":
        network = BackboneWithHead(network, name, head, outputs, shape, config["drop_rate"], config["stem"])
    if loss.kind == "ldam":
        normalise_head(network, name, loss.scale)
    if config["freeze_backbone"]:
        freeze_all_but_head(network, name)
        as_frozen(network)  # Lightning does not call train()
    if config["channels_last"]:
        to_channels_last(network)
    return network
