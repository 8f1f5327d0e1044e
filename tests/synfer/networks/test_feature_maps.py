from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torch

from synfer.networks.feature_maps import feature_maps

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_convolutional_network_gives_its_last_map() -> None:
    network = timm.create_model("resnet10t", num_classes=0).eval()
    assert torch.equal(feature_maps(network, IMAGES), network.forward_features(IMAGES))


def test_tokens_become_a_map_without_the_class_token() -> None:
    kwargs = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 0}
    network = timm.create_model("vit_tiny_patch16_224", **kwargs).eval()
    found = feature_maps(network, IMAGES)
    tokens = network.forward_features(IMAGES)
    assert found.shape == (2, 16, 4, 4) and tokens.shape == (2, 17, 16)
    assert torch.equal(found[:, :, 1, 2], tokens[:, 1 + 4 + 2])


def test_channels_that_come_last_are_put_first() -> None:
    network = SimpleNamespace(num_features=5, forward_features=lambda images: torch.zeros(2, 3, 3, 5))
    assert feature_maps(network, IMAGES).shape == (2, 5, 3, 3)


@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 5)])
def test_what_has_no_places_is_refused(shape: tuple[int, ...]) -> None:
    network = SimpleNamespace(num_features=5, forward_features=lambda images: torch.zeros(shape))
    with pytest.raises(ValueError, match=r"model.alignment.features: found features \(2, .*, expected a network whose"):
        feature_maps(network, IMAGES)
