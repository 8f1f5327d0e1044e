from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.diffusion.execution import ExecutionSettings
from tests.fixtures.tiny_generator import request_for, save_base, scaled_weights, tiny_generator

IN_BF16 = {"bf16_sampling": True, "bf16_weights": True}


def generator(**changes: Any) -> ExpressionGenerator:
    return scaled_weights(tiny_generator(**{"execution": {"bf16_sampling": True}, **changes})).eval()


def weight_bytes(network: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


@pytest.mark.parametrize("trained", ["small", "adapter", "lora"])
def test_rounded_weights_make_the_same_faces_in_half_the_memory(trained: str, tmp_path: Path) -> None:
    changes = {} if trained == "small" else {"base": str(save_base(tmp_path / "base")), "trained": trained}
    module = generator(**changes)
    unet = module.model.unet
    request, before = request_for(["happy", "sad", "neutral"] * 2), weight_bytes(unet)
    name, network = module.weights_fingerprint(), module.synthesiser.network_fingerprint()
    expected = module.synthesise(request).images.int()
    module.synthesiser.round_weights()
    found = module.synthesise(request).images.int()
    assert (found - expected).abs().max() <= 1  # autocast rounds each weight at its use anyway
    assert weight_bytes(unet) < 0.53 * before
    kept = {m.weight.dtype for m in unet.modules() if isinstance(m, (nn.GroupNorm, nn.LayerNorm))}
    assert kept == {torch.float32} and unet.conv_in.weight.dtype == torch.bfloat16
    # A set is gone on with, a cache of layouts and a calibration are used, whichever way they were begun.
    assert module.weights_fingerprint() == name and module.synthesiser.network_fingerprint() == network
    module.synthesiser.round_weights()
    assert module.weights_fingerprint() == name


@pytest.mark.parametrize("stage", ["predict", "test"])
def test_weights_are_rounded_where_faces_are_made_averaged_ones_first(stage: str) -> None:
    plain, rounded = (generator(execution=execution, ema_decay=0.9) for execution in ({"bf16_sampling": True}, IN_BF16))
    for module in (plain, rounded):
        assert module.ema is not None
        module.ema.update()  # the first update copies
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1.5)  # what is trained has gone on from the average
        getattr(module, f"on_{stage}_start")()
    assert plain.model.unet.conv_in.weight.dtype == torch.float32 and plain.ema is not None
    averaged = plain.model.unet.conv_in.weight
    assert torch.equal(rounded.model.unet.conv_in.weight, averaged.bfloat16()) and rounded.ema is None
    assert rounded.weights_fingerprint() == plain.weights_fingerprint()
    getattr(rounded, f"on_{stage}_end")()
    assert rounded.model.unet.conv_in.weight.dtype == torch.bfloat16
    with pytest.raises(
        ValueError, match=r"bf16_weights: found a checkpoint for a module whose weights have been round"
    ):
        rounded.on_load_checkpoint({})


def test_a_fit_refuses_them_and_a_validation_leaves_them_alone() -> None:
    module = generator(execution=IN_BF16)
    with pytest.raises(ValueError, match=r"model.execution.bf16_weights: found True, expected false in fit: training"):
        module.setup("fit")
    module.on_validation_start()
    assert module.model.unet.conv_in.weight.dtype == torch.float32


def test_a_network_that_runs_in_float32_keeps_its_weights() -> None:
    with pytest.raises(
        ValueError, match=r"bf16_weights: found true with model.execution.bf16_sampling=false, expected"
    ):
        ExecutionSettings(bf16_sampling=False, bf16_weights=True)
