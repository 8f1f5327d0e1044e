from __future__ import annotations

from typing import Any

import pytest
import torch

from synfer.optimisation.diffusion_optimiser import check_optimiser, diffusion_optimiser
from synfer.optimisation.muon import Muon, is_matrix
from tests.fixtures.tiny_generator import TINY_AUTOENCODER, tiny_generator

SETTINGS: dict[str, Any] = {
    "optimizer": "muon",
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "momentum": 0.9,
    "matrix_rate": 4.0,
    "base": None,
    "trained": "all",
}


def groups_by_name(**changes: Any) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Returns the group of each parameter, and the names that go by Muon."""
    module = tiny_generator(**changes)
    optimiser = diffusion_optimiser(module, SETTINGS)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    of = {names[id(p)]: group for group in optimiser.param_groups for p in group["params"]}
    matrices = {name for name, p in module.named_parameters() if is_matrix(p)}
    return of, {name for name in matrices if not of[name].get("use_fallback")}


def test_hidden_matrices_and_kernels_go_by_muon_and_all_else_by_adamw() -> None:
    of, by_muon = groups_by_name()
    assert of.keys() == {name for name, _ in tiny_generator().named_parameters()}
    assert len(by_muon) > 0.3 * len(of)
    kernels = ("resnets.0.conv1.weight", "attn1.to_q.weight", "attn2.processor.to_v_ip.0.weight", "mlp.fc1.weight")
    assert all(any(name.endswith(end) for name in by_muon) for end in kernels)
    rest = {name for name in of if name not in by_muon and of[name]["params"][0].ndim > 1}
    ends = {
        "model.unet.conv_in.weight",
        "model.unet.conv_out.weight",
        "model.unet.time_embedding.linear_1.weight",
        "model.unet.encoder_hid_proj.image_projection_layers.0.ff.net.0.proj.weight",
        "model.text_encoder.embeddings.token_embedding.weight",
        "model.text_encoder.embeddings.position_embedding.weight",
    }
    assert ends <= rest
    assert not {name for name in by_muon if name.endswith((".bias", "norm.weight", "norm1.weight"))}


def test_a_learned_codec_has_ends_of_its_own() -> None:
    _, by_muon = groups_by_name(codec="autoencoder_kl", codec_config=TINY_AUTOENCODER, autoencoder_steps=2)
    codec = {name for name in by_muon if ".codec." in name}
    assert codec and not {name for name in codec if name.endswith(("conv_in.weight", "conv_out.weight"))}


def test_rates_decay_and_momentum_are_as_asked() -> None:
    optimiser = diffusion_optimiser(tiny_generator(), SETTINGS)
    assert isinstance(optimiser, Muon)
    matrices, rest = optimiser.param_groups
    assert (matrices["lr"], rest["lr"]) == (4e-3, 1e-3)
    assert matrices["momentum"] == 0.9 and matrices["weight_decay"] == rest["weight_decay"] == 0.1
    adamw = diffusion_optimiser(tiny_generator(), {**SETTINGS, "optimizer": "adamw"})
    assert isinstance(adamw, torch.optim.AdamW)
    assert [(group["lr"], group["weight_decay"]) for group in adamw.param_groups] == [(1e-3, 0.1)]


def test_what_is_frozen_stays_out() -> None:
    module = tiny_generator()
    module.model.text_encoder.requires_grad_(False)
    given = {id(p) for group in diffusion_optimiser(module, SETTINGS).param_groups for p in group["params"]}
    assert not given & {id(p) for p in module.model.text_encoder.parameters()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lion"}, r"model.optimizer: found lion, expected one of adamw, muon"),
        ({"momentum": 1.0}, r"model.momentum: found 1.0, expected a number in \[0, 1\)"),
        ({"matrix_rate": 0.0}, r"model.matrix_rate: found 0.0, expected a number above 0"),
        ({"trained": "lora"}, r"model.optimizer: found muon with model.trained 'lora', expected adamw: Muon is for"),
        ({"trained": "adapter"}, r"model.optimizer: found muon with model.trained 'adapter', expected adamw"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    check_optimiser(SETTINGS)
    with pytest.raises(ValueError, match=message):
        check_optimiser({**SETTINGS, **changes})
