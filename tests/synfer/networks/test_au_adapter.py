from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

from synfer.faces.action_units import ACTION_UNITS, REGIONS
from synfer.networks.au_adapter import (
    attach_au_adapter,
    au_adapter_parameters,
    embed_action_units,
    region_masks,
    set_au_scale,
)
from tests.fixtures.tiny_generator import TINY_UNET

A = len(ACTION_UNITS)
MASKS = region_masks(ACTION_UNITS)


def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(sample_size=4, in_channels=4, out_channels=4, **TINY_UNET).eval()


def adapted(unet: UNet2DConditionModel, scale: float = 1.0) -> UNet2DConditionModel:
    unet = copy.deepcopy(unet)
    torch.manual_seed(1)
    attach_au_adapter(unet, A, scale)
    return unet.eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 4, 4, 4, generator=generator), torch.randn(2, 7, 16, generator=generator)


@torch.no_grad()
def run(unet: UNet2DConditionModel, au: torch.Tensor) -> torch.Tensor:
    latents, text = inputs()
    added = {"image_embeds": [embed_action_units(au, MASKS)]}
    return unet(latents, torch.tensor([10, 700]), text, added_cond_kwargs=added).sample


def absent() -> torch.Tensor:
    return torch.zeros(2, A)


def unknown() -> torch.Tensor:
    return torch.full((2, A), torch.nan)


# ---------------------------------------------------------------- the input


def test_every_action_unit_belongs_to_exactly_one_region() -> None:
    assert MASKS.shape == (4, A)
    assert (MASKS.sum(0) == 1).all()
    assert MASKS[list(REGIONS).index("mouth"), ACTION_UNITS.index("AU12")] == 1
    assert MASKS[list(REGIONS).index("brows"), ACTION_UNITS.index("AUL4")] == 1


def test_region_masks_follow_the_names_and_not_the_order() -> None:
    names = ("AU12", "AU1", "AU9")
    assert torch.equal(region_masks(names), torch.stack([MASKS[:, ACTION_UNITS.index(name)] for name in names], 1))


def test_an_action_unit_without_a_region_is_named() -> None:
    with pytest.raises(ValueError, match=r"'AU99'.*expected one of"):
        region_masks(("AU1", "AU99"))


def test_a_unit_enters_the_token_of_its_region_with_its_flag() -> None:
    au = unknown()
    au[0, ACTION_UNITS.index("AU12")] = 0.75
    au[0, ACTION_UNITS.index("AU4")] = 0.0
    embedded = embed_action_units(au, MASKS)
    assert embedded.shape == (2, 4, 2 * A) and embedded.isfinite().all()
    mouth, brows = (list(REGIONS).index(name) for name in ("mouth", "brows"))
    expected = torch.zeros(2, 4, 2 * A)
    expected[0, mouth, ACTION_UNITS.index("AU12")] = 0.75
    expected[0, mouth, A + ACTION_UNITS.index("AU12")] = 1
    expected[0, brows, A + ACTION_UNITS.index("AU4")] = 1  # known not to act
    assert torch.equal(embedded, expected)


def test_unknown_is_not_absent() -> None:
    assert not embed_action_units(unknown(), MASKS).any()
    assert torch.equal(embed_action_units(absent(), MASKS)[0, :, A:], MASKS)
    unet = adapted(tiny_unet())
    assert (run(unet, unknown()) - run(unet, absent())).abs().amax() > 1e-5


# ---------------------------------------------------------------- the branch


def test_keys_and_values_start_as_copies_of_the_text_ones() -> None:
    unet = adapted(tiny_unet())
    found = 0
    for name, processor in unet.attn_processors.items():
        if not isinstance(processor, IPAdapterAttnProcessor2_0):
            assert not name.endswith("attn2.processor")
            continue
        attention = unet.get_submodule(name.removesuffix(".processor"))
        assert torch.equal(processor.to_k_ip[0].weight, attention.to_k.weight)
        assert torch.equal(processor.to_v_ip[0].weight, attention.to_v.weight)
        assert processor.to_k_ip[0].weight.data_ptr() != attention.to_k.weight.data_ptr()
        found += 1
    assert found == sum(name.endswith("attn2.processor") for name in unet.attn_processors) > 0


def test_scale_zero_is_the_unet_without_adapter() -> None:
    plain = tiny_unet()
    latents, text = inputs()
    with torch.no_grad():
        expected = plain(latents, torch.tensor([10, 700]), text).sample
    for unet in (adapted(plain, scale=0.0), adapted(plain)):
        set_au_scale(unet, 0.0)
        torch.testing.assert_close(run(unet, torch.rand(2, A)), expected, atol=1e-6, rtol=0)
    assert (run(adapted(plain), torch.rand(2, A)) - expected).abs().amax() > 1e-4


def test_scale_acts_in_every_layer_and_can_be_set_back() -> None:
    unet, au = adapted(tiny_unet()), torch.rand(2, A)
    full = run(unet, au)
    set_au_scale(unet, 0.5)
    assert (run(unet, au) - full).abs().amax() > 1e-5
    set_au_scale(unet, 1.0)
    assert torch.equal(run(unet, au), full)


def test_each_row_sees_its_own_action_units() -> None:
    unet = adapted(tiny_unet())
    both = run(unet, torch.cat([absent()[:1], torch.ones(1, A)]))
    other = run(unet, absent())
    torch.testing.assert_close(both[0], other[0], atol=1e-6, rtol=0)
    assert (both[1] - other[1]).abs().amax() > 1e-5


def test_adapter_parameters_are_all_that_attaching_added() -> None:
    plain = tiny_unet()
    unet = adapted(plain)
    before = {name for name, _ in plain.named_parameters()}
    added = {id(p) for name, p in unet.named_parameters() if name not in before}
    assert {id(p) for p in au_adapter_parameters(unet)} == added
    assert before < {name for name, _ in unet.named_parameters()}


def test_gradients_reach_every_adapter_parameter() -> None:
    unet = adapted(tiny_unet())
    latents, text = inputs()
    added = {"image_embeds": [embed_action_units(torch.rand(2, A), MASKS)]}
    unet(latents, 10, text, added_cond_kwargs=added).sample.pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in au_adapter_parameters(unet))


def test_of_low_rank_it_starts_the_same_and_learns_less() -> None:
    plain = tiny_unet()
    whole, low = adapted(plain), copy.deepcopy(plain)
    torch.manual_seed(1)
    attach_au_adapter(low, A, rank=2)
    low.encoder_hid_proj.load_state_dict(whole.encoder_hid_proj.state_dict())
    au = torch.rand(2, A)
    assert torch.equal(run(low.eval(), au), run(whole, au))
    learnt = {id(p) for p in au_adapter_parameters(low)}
    frozen = [name for name, p in low.named_parameters() if "_ip." in name and id(p) not in learnt]
    assert frozen and all(name.endswith("weight.original") for name in frozen)
    layers = [p for name, p in low.named_parameters() if "_ip." in name and id(p) in learnt]
    assert all(2 in parameter.shape for parameter in layers) and len(layers) == 2 * len(frozen)


def test_of_low_rank_half_weights_change_in_float32() -> None:
    unet = tiny_unet().to(torch.bfloat16)
    attach_au_adapter(unet, A, rank=2)
    layer = next(p.to_k_ip[0] for p in unet.attn_processors.values() if isinstance(p, IPAdapterAttnProcessor2_0))
    change = layer.parametrizations.weight[0]
    assert layer.parametrizations.weight.original.dtype is torch.bfloat16
    with torch.no_grad():
        change.up.fill_(1e-4)
    expected = layer.parametrizations.weight.original.float() + 1e-4 * change.down.sum(0)
    torch.testing.assert_close(layer.weight, expected.expand_as(layer.weight), atol=1e-7, rtol=0)
    assert layer.weight.dtype is torch.float32


def test_a_unet_without_cross_attention_is_refused() -> None:
    torch.manual_seed(0)
    blind = {**TINY_UNET, "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    unet = UNet2DConditionModel(sample_size=4, in_channels=4, out_channels=4, **blind, mid_block_type="UNetMidBlock2D")
    with pytest.raises(ValueError, match="no cross-attention"):
        attach_au_adapter(unet, A)
