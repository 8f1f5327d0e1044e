"""A last layer of cosines: what it computes, in which precision, and in which networks it can stand."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from synfer.networks.backbone import build_backbone
from synfer.networks.normalised_head import NormalisedHead, normalise_head


def test_logits_are_scaled_cosines_whatever_the_lengths() -> None:
    head, features = NormalisedHead(5, 3, 30.0), torch.randn(4, 5)
    expected = 30 * F.cosine_similarity(features.unsqueeze(1), head.weight.unsqueeze(0), dim=2)
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(7 * features), expected)
    assert head.bias is None and head(torch.zeros(1, 5)).isfinite().all()


def test_full_precision_under_autocast() -> None:
    head, features = NormalisedHead(5, 3, 30.0), torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, head(features))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("resnet10t", {"channels": [4, 4, 8, 8], "stem_width": 4}),
        ("ese_vovnet19b_slim", {"stem_chs": [8, 8, 8], "stage_conv_chs": [8] * 4, "stage_out_chs": [8, 8, 16, 16]}),
    ],
)
def test_the_last_layer_of_a_network_is_replaced(name: str, kwargs: dict) -> None:
    network = build_backbone(name, 3, image_size=24, stem="small", kwargs=kwargs)
    normalise_head(network, name, 10.0)
    head = network.get_classifier()
    assert isinstance(head, NormalisedHead) and sum(isinstance(m, NormalisedHead) for m in network.modules()) == 1
    logits = network.eval()(torch.randn(2, 3, 24, 24))
    assert logits.shape == (2, 3) and float(logits.detach().abs().max()) <= 10.0001


def test_a_network_that_ends_otherwise_is_refused() -> None:
    network = timm.create_model("resnet10t", num_classes=0)
    with pytest.raises(ValueError, match=r"found 'ldam' with the backbone 'resnet10t', whose last layer is Identity"):
        normalise_head(network, "resnet10t", 30.0)
    with pytest.raises(ValueError, match="whose last layer is NoneType"):
        normalise_head(nn.Sequential(nn.Linear(2, 2)), "mine", 30.0)
