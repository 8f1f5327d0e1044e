from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor

from synfer.networks.lora_layers import _FusedLora, fuse_lora
from tests.fixtures.tiny_generator import TINY_UNET


def unet(**settings: Any) -> Any:
    torch.manual_seed(0)
    made = UNet2DConditionModel(sample_size=8, in_channels=4, out_channels=4, **TINY_UNET).requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2"]
    made.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=targets, **settings))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.train()


def backward(network: Any, half: bool) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    latents, text = torch.randn(3, 4, 8, 8, generator=draw), torch.randn(3, 5, 16, generator=draw).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = network(latents, torch.tensor([1, 500, 999]), text).sample
    output.float().square().mean().backward()
    assert text.grad is not None
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"output": output.detach().float(), "text": text.grad, **found}


def test_outputs_and_gradients_are_those_of_peft() -> None:
    plain = unet()
    fused = copy.deepcopy(plain)
    fuse_lora(fused)
    assert sum(isinstance(module, _FusedLora) for module in fused.modules()) > 8
    assert list(fused.state_dict()) == list(plain.state_dict())
    found, expected = backward(fused, half=False), backward(plain, half=False)
    assert found.keys() == expected.keys() and len(found) > 18
    for name, tensor in expected.items():
        bound = 1e-5 * float(tensor.abs().amax())
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=bound, msg=name)


def test_bfloat16_rounds_no_more_than_in_peft() -> None:
    plain = unet()
    fused = copy.deepcopy(plain)
    fuse_lora(fused)
    exact = backward(copy.deepcopy(plain), half=False)
    found, theirs = backward(fused, half=True), backward(plain, half=True)
    ours, of_peft = (
        sum(float((made[name] - tensor).norm() / tensor.norm()) for name, tensor in exact.items()) / len(exact)
        for made in (found, theirs)
    )
    assert 0 < ours < 1.2 * of_peft < 0.1


def test_what_else_peft_can_do_is_left_to_it() -> None:
    plain = unet(lora_dropout=0.5)
    fused = copy.deepcopy(plain)
    fuse_lora(fused)
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor(3), torch.randn(1, 5, 16))
    for network in (plain, fused):
        torch.manual_seed(2)
        network.outputs = network(*inputs).sample
    assert torch.equal(plain.outputs, fused.outputs)  # with its dropout
    plain.disable_adapters()
    fused.disable_adapters()
    assert torch.equal(plain(*inputs).sample, fused(*inputs).sample)
    plain.enable_adapters()
    fused.enable_adapters()
    fused.eval().fuse_lora()
    torch.testing.assert_close(fused(*inputs).sample, plain.eval()(*inputs).sample, rtol=1e-4, atol=1e-5)
