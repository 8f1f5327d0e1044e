from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from synfer.networks.frozen_layers import keep_less
from tests.fixtures.tiny_generator import TINY_UNET


def unet() -> Any:
    """A UNet that is frozen but for the queries of its attention."""
    torch.manual_seed(0)
    made = UNet2DConditionModel(sample_size=8, in_channels=4, out_channels=4, **TINY_UNET).requires_grad_(False)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_("to_q" in name)
    return made.train()


def backward(network: Any, precision: torch.dtype | None = None) -> tuple[Tensor, dict[str, Tensor], Tensor, int]:
    """Returns output, gradients of what learns and of the text, and how many numbers were kept in between."""
    draw = torch.Generator().manual_seed(1)
    latents, text = torch.randn(3, 4, 8, 8, generator=draw), torch.randn(3, 5, 16, generator=draw).requires_grad_()
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision is not None),
    ):
        output = network(latents, torch.tensor([1, 500, 999]), text).sample
    output.float().square().mean().backward()
    assert text.grad is not None
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    return output.detach(), gradients, text.grad, sum(size for place, size in kept.items() if place not in own)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_outputs_and_gradients_are_the_same_and_less_is_kept(precision: Any, channels_last: bool) -> None:
    plain = unet()
    if channels_last:
        plain = plain.to(memory_format=torch.channels_last)
    lean = copy.deepcopy(plain)
    keep_less(lean)
    assert list(lean.state_dict()) == list(plain.state_dict())
    expected, found = backward(plain, precision), backward(lean, precision)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    loose = {"rtol": 2e-2, "atol": 1e-4} if precision else {"rtol": 1e-4, "atol": 1e-7}
    torch.testing.assert_close(found[2], expected[2], **loose)
    assert found[1].keys() == expected[1].keys() != set()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, **loose)
    assert found[3] < 0.75 * expected[3]


def test_gates_alone_keep_a_little_less() -> None:
    plain, gates, lean = unet(), unet(), unet()
    keep_less(gates, gates_alone=True)
    keep_less(lean)
    kept = [backward(network)[3] for network in (plain, gates, lean)]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == 3


def test_layers_that_learn_stay_as_they_are() -> None:
    plain = unet().requires_grad_(True)
    kinds = [type(module) for module in plain.modules()]
    keep_less(plain)
    assert [type(module) for module in plain.modules()] == kinds


def test_nothing_is_kept_without_gradients() -> None:
    plain, lean = unet(), unet()
    keep_less(lean)
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor(3), torch.randn(1, 5, 16))
    with torch.no_grad():
        assert torch.equal(plain(*inputs).sample, lean(*inputs).sample)


def test_blocks_that_scale_between_norm_and_activation_keep_their_order() -> None:
    torch.manual_seed(0)
    settings = {**TINY_UNET, "resnet_time_scale_shift": "scale_shift"}
    plain = UNet2DConditionModel(sample_size=8, in_channels=4, out_channels=4, **settings).requires_grad_(False)
    lean = copy.deepcopy(plain)
    keep_less(lean)
    assert any(isinstance(module, nn.SiLU) for module in lean.modules())
    for network in (plain, lean):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_("to_q" in name)
    torch.testing.assert_close(backward(lean)[0], backward(plain)[0], rtol=0, atol=0)
