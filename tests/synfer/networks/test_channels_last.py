"""Networks in channels-last: the same network, whose gradients stay in the format, too."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import ConvNormAct, EffectiveSEModule
from torch import Tensor, nn

from synfer.networks.channels_last import to_channels_last

SMALL = {"stem_chs": [8, 8, 8], "stage_conv_chs": [8, 8, 16, 16], "stage_out_chs": [16, 16, 32, 32]}


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    blocks = [1, 1, 1, 1] if name.endswith("dw") else [1, 1, 2, 1]  # depthwise blocks cannot be residual
    small = {**SMALL, "layer_per_block": 2, "block_per_stage": blocks} if "vovnet" in name else {}
    return timm.create_model(name, num_classes=3, **small).double()


def learned(network: nn.Module, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the logits of a training pass, and the gradients of a loss of these."""
    logits = network.train()(image)
    logits.square().sum().backward()
    return logits.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["ese_vovnet39b", "vovnet39a", "ese_vovnet19b_dw", "resnet10t"])
def test_the_same_network(name: str) -> None:
    ours = network_of(name)
    theirs = copy.deepcopy(ours)
    assert to_channels_last(ours) is ours
    assert list(ours.state_dict()) == list(theirs.state_dict())
    image = torch.rand(4, 3, 48, 48, dtype=torch.float64)
    logits, gradients = learned(ours, image)
    wanted, wanted_gradients = learned(theirs, image)
    torch.testing.assert_close(logits, wanted)
    assert len(gradients) == len(dict(theirs.named_parameters()))
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted_gradients[parameter], rtol=1e-6, atol=1e-8, msg=parameter)


def test_gradients_stay_in_the_format() -> None:
    network = to_channels_last(network_of("ese_vovnet39b").float())
    seen: dict[str, bool] = {}

    def watch(name: str, output: Tensor) -> None:
        def note(gradient: Tensor) -> None:
            seen[name] = gradient.is_contiguous(memory_format=torch.channels_last)

        output.register_hook(note)

    layers = {name: module for name, module in network.named_modules() if isinstance(module, ConvNormAct)}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda module, inputs, output, name=name: watch(name, output))
    with torch.autocast("cpu", torch.bfloat16):
        maps = network.train().forward_features(torch.rand(4, 3, 96, 96))  # type: ignore[operator]
    maps.float().square().sum().backward()
    assert len(seen) == len(layers) > 15
    assert all(seen.values()), seen


def test_squeezing_hands_its_gradient_on_in_the_format() -> None:
    network = to_channels_last(network_of("ese_vovnet39b").float())
    seen: list[tuple[Tensor, Tensor]] = []
    blocks = [block for block in network.modules() if getattr(block, "attn", None) is not None]
    for block in blocks:
        block.attn.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0], inputs[0])))
        block.attn.fc.register_forward_pre_hook(lambda module, inputs: seen.append((seen.pop()[0], inputs[0])))
    network.train()(torch.rand(4, 3, 96, 96))
    assert len(seen) == len(blocks) == 4
    for squeezed, means in seen:
        assert tuple(means.shape) == (4, squeezed.shape[1], 1, 1)
        (gradient,) = torch.autograd.grad(means.sum(), squeezed, retain_graph=True)
        assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_squeezing_by_the_largest_value_too_stays_as_it_is() -> None:
    network = nn.Sequential(EffectiveSEModule(8, add_maxpool=True), EffectiveSEModule(8))
    kept, replaced = to_channels_last(network)
    assert type(kept) is EffectiveSEModule and type(replaced) is not EffectiveSEModule


def test_gradients_of_the_image() -> None:
    """As guidance asks for, of a network whose weights are frozen."""
    ours = to_channels_last(network_of("ese_vovnet39b")).eval().requires_grad_(False)
    theirs = network_of("ese_vovnet39b").eval().requires_grad_(False)
    image = torch.rand(2, 3, 48, 48, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours(image).logsumexp(1).sum(), image)
    (wanted,) = torch.autograd.grad(theirs(image).logsumexp(1).sum(), image)
    torch.testing.assert_close(gradient, wanted)
