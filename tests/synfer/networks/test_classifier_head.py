"""Heads on a timm network's maps: what learns, what is frozen, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from synfer.networks.backbone import build_backbone
from synfer.networks.classifier_head import BackboneWithHead, ClassifierHeadSettings, network_inside
from synfer.networks.frozen_backbone import as_frozen, freeze_all_but_head

SMALL: dict[str, Any] = {"stem_width": 8, "channels": [8, 8, 16, 16]}
STREAM: dict[str, Any] = {"stem_width": 8, "channels": [4, 4, 8, 8]}


def with_head(kind: str, **settings: Any) -> BackboneWithHead:
    made = ClassifierHeadSettings(kind=kind, width=8, num_heads=2, stream_kwargs=STREAM, **settings)  # type: ignore[arg-type]
    return BackboneWithHead(build_backbone("resnet10t", 7, image_size=16, kwargs=SMALL), "resnet10t", made, 7, (3, 16))


@pytest.mark.parametrize("kind", ["attentive_pooling", "two_streams"])
def test_everything_that_asks_for_a_gradient_gets_one(kind: str) -> None:
    """DistributedDataParallel would wait for the others: the network's own last layer, and stages nobody reads."""
    network = with_head(kind)
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    network(torch.rand(4, 3, 16, 16)).square().sum().backward()
    asking = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in asking.values())
    assert "network.fc.weight" not in asking and "network.layer1.0.conv1.weight" in asking
    assert ("network.layer4.0.conv1.weight" in asking) == (kind == "two_streams")  # the other reads the map before
    assert set(network_inside(network.state_dict())) == set(network.network.state_dict())


def test_a_frozen_backbone_leaves_the_whole_head_to_learn() -> None:
    network = with_head("two_streams").train()
    freeze_all_but_head(network, "resnet10t")
    as_frozen(network)
    learning = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"head"} and network.head.training and not network.network.training


def test_a_second_stream_with_weights_stays_as_it_is(tmp_path: Path) -> None:
    stream = build_backbone("resnet10t", 3, image_size=16, kwargs=STREAM)
    save_file(stream.state_dict(), tmp_path / "stream.safetensors")
    network = with_head("two_streams", stream_weights=str(tmp_path / "stream.safetensors")).train()
    loaded = network.head["stream"]
    assert torch.equal(loaded.layer4[0].conv1.weight, stream.layer4[0].conv1.weight)
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training and network.head.training
    freeze_all_but_head(network, "resnet10t")
    as_frozen(network)
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
    assert network.head["fusion"].training and not network.network.training


def test_what_cannot_be_is_refused() -> None:
    for wrong, message in (
        ({"kind": "convolutional"}, r"^model\.head\.kind: found 'convolutional', expected one of linear, attentive"),
        ({"width": 10, "num_heads": 4}, r"^model\.head\.num_heads: found 4, expected a divisor of model\.head\.width"),
        ({"keep_tokens": 0.0}, r"^model\.head\.keep_tokens: found 0\.0, expected a number in \(0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            ClassifierHeadSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^model\.backbone: found 'resnet10t', of which 9 maps cannot be read"):
        with_head("attentive_pooling", stages=9)
    with pytest.raises(ValueError, match=r"^model\.backbone: found 'plain', .* \(it gives no feature maps\), expected"):
        BackboneWithHead(torch.nn.Flatten(), "plain", ClassifierHeadSettings(kind="attentive_pooling"), 7, (3, 16))
