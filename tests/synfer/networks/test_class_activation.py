"""Class activation maps add up to the logits, and leave the network as it was."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from synfer.networks.backbone import build_backbone
from synfer.networks.class_activation import (
    check_has_maps,
    class_activation_maps,
    last_features,
    with_mirrored_maps,
)

VOVNET = {"stem_chs": [8, 8, 8], "stage_conv_chs": [8] * 4, "stage_out_chs": [8, 8, 16, 16]}
RESNET = {"channels": [4, 4, 8, 8], "stem_width": 4}
NETWORKS = [("resnet10t", RESNET), ("ese_vovnet19b_slim", VOVNET)]


def network(name: str, kwargs: dict) -> nn.Module:
    return build_backbone(name, 3, image_size=48, stem="small", kwargs=kwargs).eval()


@pytest.mark.parametrize(("name", "kwargs"), NETWORKS)
def test_the_mean_of_a_map_is_the_logit_without_its_bias(name: str, kwargs: dict) -> None:
    net, picture = network(name, kwargs), torch.randn(2, 3, 48, 48)
    check_has_maps(net, name, (1, 3, 48, 48))
    with last_features(net) as features:
        logits = net(picture)
    maps = class_activation_maps(net, features[0])
    bias = net.get_classifier().bias  # type: ignore[operator]
    torch.testing.assert_close(maps.mean((2, 3)) + bias, logits, rtol=1e-4, atol=1e-5)
    assert "forward_features" not in vars(net) and len(features) == 1
    net(picture)
    assert len(features) == 1  # nothing is kept any more


@pytest.mark.parametrize(("name", "kwargs"), NETWORKS)
def test_maps_of_a_face_and_of_its_mirror_image(name: str, kwargs: dict) -> None:
    net, picture = network(name, kwargs), torch.randn(2, 3, 48, 48)
    logits, maps, mirrored = with_mirrored_maps(net, net, picture)
    torch.testing.assert_close(logits, net(picture))
    assert torch.equal(mirrored, with_mirrored_maps(net, net, picture.flip(-1))[1])
    assert maps.dtype == torch.float32 and maps.shape == mirrored.shape
    maps.sum().backward()
    assert any(parameter.grad is not None for parameter in net.parameters())


def test_a_network_without_maps_is_refused() -> None:
    net = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32)
    with pytest.raises(
        ValueError, match=r"model\.loss\.consistency: found features \(1, 5, 192\) at the end of the back"
    ):
        check_has_maps(net, "vit_tiny_patch16_224", (1, 3, 32, 32))
    net = timm.create_model("resnet10t", num_classes=0)
    with pytest.raises(ValueError, match="found Identity at the end of the backbone 'resnet10t', expected a map"):
        check_has_maps(net, "resnet10t", (1, 3, 32, 32))
