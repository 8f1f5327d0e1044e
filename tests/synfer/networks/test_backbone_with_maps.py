from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from synfer.networks.backbone_with_maps import BackboneWithMaps

SHAPES = [(3, 4), (5, 2), (2, 2), (4, 1), (6, 13)]


def resnet() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=0, in_chans=1, channels=[8, 8, 12, 16])


def maps(seed: int = 0, n: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, c, s, s, generator=generator) for c, s in SHAPES]


def images(n: int = 2) -> Tensor:
    return torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def test_maps_go_to_the_stage_of_their_size() -> None:
    # Stages of ResNet-18 on 32 pixels: 16 (act1), 8, 4, 2 and 1 a side.
    network = BackboneWithMaps(resnet(), (1, 32), SHAPES, 10)
    assert network.groups == {"layer2": [0], "layer3": [1, 2], "layer4": [3], "act1": [4]}
    assert network.stages == {
        "act1": (64, 16),
        "layer1": (8, 8),
        "layer2": (8, 4),
        "layer3": (12, 2),
        "layer4": (16, 1),
    }


def test_every_map_and_the_image_count() -> None:
    network = BackboneWithMaps(resnet(), (1, 32), SHAPES, 10).eval()
    tokens = network(maps(), images())
    assert tuple(tokens.shape) == (2, 1, 10)
    assert not torch.equal(network(maps(), images().flip(0)), tokens)
    for i in range(len(SHAPES)):
        changed = [new if i == j else old for j, (old, new) in enumerate(zip(maps(), maps(1), strict=True))]
        assert not torch.equal(network(changed, images()), tokens)
    assert torch.equal(network(maps(), images()), tokens)  # nothing stays behind in the network


def test_without_maps_it_is_the_timm_network() -> None:
    for network in (
        BackboneWithMaps(resnet(), (1, 32), [], 10).eval(),
        BackboneWithMaps(resnet(), (1, 32), SHAPES, 10).eval(),
    ):
        for projection in network.inputs.values():
            projection[2].weight.data.zero_()
            projection[2].bias.data.zero_()
        own = network.output(resnet().eval().forward_features(images()).flatten(2).transpose(1, 2))
        torch.testing.assert_close(network(maps() if network.inputs else [], images()), own)


def test_every_weight_learns() -> None:
    network = BackboneWithMaps(resnet(), (1, 32), SHAPES, 10)
    network(maps(n=4), images(4)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


# Networks with weights behind their last stage, for a classifier that is not used here: DDP would wait for gradients.
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto", "vgg11", "ghostnet_050", "ese_vovnet39b"])
def test_other_families(name: str) -> None:
    network = BackboneWithMaps(timm.create_model(name, num_classes=0, in_chans=1), (1, 32), SHAPES, 10)
    tokens = network.eval()(maps(), images())
    assert tokens.shape[::2] == (2, 10)
    tokens.square().sum().backward()
    assert [n for n, p in network.named_parameters() if (p.grad is not None) != p.requires_grad] == []
    trained = sum(p.requires_grad for p in network.network.parameters())
    assert trained > len(list(network.network.parameters())) - 6
    assert network.network.training is False and torch.is_grad_enabled()


def test_a_frozen_weight_stays_frozen() -> None:
    own = resnet()
    own.get_parameter("conv1.weight").requires_grad_(False)
    network = BackboneWithMaps(own, (1, 32), SHAPES, 10)
    assert [n for n, p in network.network.named_parameters() if not p.requires_grad] == ["conv1.weight"]


@pytest.mark.parametrize("name", ["hrnet_w18_small", "selecsls42"])
def test_networks_whose_stages_hand_on_lists_are_refused(name: str) -> None:
    network = timm.create_model(name, num_classes=0, in_chans=1)
    with pytest.raises(
        ValueError, match=r"model.backbone: found stages of the shapes \['list', 'list', 'list'\], expected"
    ):
        BackboneWithMaps(network, (1, 32), SHAPES, 10)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_networks_without_maps_are_refused(name: str) -> None:
    network = timm.create_model(name, num_classes=0, in_chans=1, img_size=32)
    with pytest.raises(ValueError, match=r"model.backbone: found stages of the shapes .*expected a convolutional timm"):
        BackboneWithMaps(network, (1, 32), SHAPES, 10)
