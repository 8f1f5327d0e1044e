"""A UNet that takes the guidance scale: as diffusers writes it, and without effect before it has learned."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from synfer.networks.scale_input import WIDTH, add_scale_input, embed_scale, hears_scale, scale_layer
from tests.fixtures.tiny_generator import TINY_UNET, tiny_generator


def tiny_unet(**changes: int) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(sample_size=4, in_channels=4, out_channels=4, **TINY_UNET, **changes).eval()


def output(unet: UNet2DConditionModel, scale: float | None) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 4, 4, generator=drawn), torch.randn(2, 3, 16, generator=drawn)
    width = unet.config.time_cond_proj_dim
    heard = None if scale is None else embed_scale(torch.full((2,), scale), width)
    with torch.no_grad():
        return unet(latents, 500, text, timestep_cond=heard).sample


def test_scales_are_written_as_the_pipelines_of_diffusers_write_them() -> None:
    scales = torch.tensor([1.0, 2.5, 7.5])
    theirs = StableDiffusionPipeline.get_guidance_scale_embedding(None, scales - 1, embedding_dim=WIDTH)
    torch.testing.assert_close(embed_scale(scales, WIDTH), theirs)


def test_a_new_input_changes_nothing_before_it_has_learned() -> None:
    unet = tiny_unet()
    before = output(unet, None)
    assert not hears_scale(unet)
    add_scale_input(unet)
    assert hears_scale(unet) and unet.config.time_cond_proj_dim == WIDTH
    assert torch.equal(output(unet, 1.0), before) and torch.equal(output(unet, 5.0), before)
    torch.nn.init.ones_(scale_layer(unet).weight)
    assert not torch.allclose(output(unet, 1.0), output(unet, 5.0))


def test_an_input_that_is_there_stays() -> None:
    unet = tiny_unet(time_cond_proj_dim=32)
    layer = scale_layer(unet)
    add_scale_input(unet)
    assert scale_layer(unet) is layer and unet.config.time_cond_proj_dim == 32


def test_it_comes_before_an_au_adapter() -> None:
    with pytest.raises(RuntimeError, match="found a UNet with an AU adapter"):
        add_scale_input(tiny_generator().model.unet)
