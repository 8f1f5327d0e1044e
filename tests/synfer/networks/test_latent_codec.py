from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.readers.drawn import DrawnReader
from lightning_modules.generator import ExpressionGenerator
from synfer.networks.latent_codec import AutoencoderKLCodec, SpaceToDepthCodec, build_codec, load_codec
from tests.fixtures.tiny_generator import SIDE, TINY_AUTOENCODER, save_base, save_checkpoint, tiny_generator


def uint8_images(n: int = 6, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def tiny_autoencoder() -> AutoencoderKLCodec:
    torch.manual_seed(0)
    codec = build_codec("autoencoder_kl", TINY_AUTOENCODER)
    assert isinstance(codec, AutoencoderKLCodec)
    return codec.eval()


@pytest.mark.parametrize(("patch", "scaling_factor"), [(1, 1.0), (2, 2.0), (4, 2.0), (8, 3.7)])
def test_space_to_depth_returns_every_pixel(patch: int, scaling_factor: float) -> None:
    codec = SpaceToDepthCodec(patch=patch, channels=3, scaling_factor=scaling_factor)
    images = uint8_images()
    latents = codec.encode(images.float() / 127.5 - 1)
    assert latents.shape == (6, 3 * patch * patch, SIDE // patch, SIDE // patch)
    assert latents.shape[1] == codec.latent_channels and SIDE // latents.shape[2] == codec.downscale
    decoded = codec.decode(latents)
    assert torch.equal(((decoded + 1) * 127.5).round().to(torch.uint8), images)


def test_a_power_of_two_as_scale_loses_not_even_rounding() -> None:
    image = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    codec = SpaceToDepthCodec(patch=4, channels=3, scaling_factor=2.0)
    assert torch.equal(codec.decode(codec.encode(image)), image)


def test_a_position_of_a_latent_holds_one_patch() -> None:
    image = torch.zeros(1, 3, SIDE, SIDE)
    image[:, :, 4:8, 8:12] = 1
    latents = SpaceToDepthCodec(patch=4, channels=3, scaling_factor=2.0).encode(image)
    assert (latents[0, :, 1, 2] == 2).all() and latents.sum() == 2 * 3 * 16


def test_grey_codec_is_exact_on_grey_faces_and_takes_the_mean_of_colours() -> None:
    codec = SpaceToDepthCodec(patch=4, channels=1)
    grey = uint8_images(channels=1).expand(-1, 3, -1, -1)
    latents = codec.encode(grey.float() / 127.5 - 1)
    assert latents.shape == (6, 16, 4, 4)
    assert torch.equal(((codec.decode(latents) + 1) * 127.5).round().to(torch.uint8), grey)
    colour = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(codec.decode(codec.encode(colour)), colour.mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_latents_of_faces_have_about_unit_variance() -> None:
    faces = DrawnReader(count={"train": 32}, image_size=48).read("train").images.batch(range(32))
    latents = SpaceToDepthCodec(patch=4, channels=3).encode(faces.float() / 127.5 - 1)
    assert 0.6 < float(latents.std()) < 1.6


def test_gradients_pass_through_the_decoder() -> None:
    for codec in (SpaceToDepthCodec(patch=4, channels=1), tiny_autoencoder()):
        latents = torch.randn(2, codec.latent_channels, SIDE // codec.downscale, SIDE // codec.downscale)
        codec.decode(latents.requires_grad_()).pow(2).sum().backward()
        assert latents.grad is not None and (latents.grad.flatten(1).abs().sum(1) > 0).all()


def test_autoencoder_has_the_shapes_it_says() -> None:
    codec = tiny_autoencoder()
    assert codec.learned and not SpaceToDepthCodec().learned
    image = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    latents = codec.encode(image)
    assert latents.shape == (2, codec.latent_channels, SIDE // codec.downscale, SIDE // codec.downscale)
    assert codec.decode(latents).shape == image.shape


def test_autoencoder_scales_its_latents_there_and_back() -> None:
    codec = tiny_autoencoder()
    image = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    mode = codec.autoencoder.encode(image).latent_dist.mode()
    factor = codec.autoencoder.config.scaling_factor
    assert factor != 1
    torch.testing.assert_close(codec.encode(image), mode * factor)
    torch.testing.assert_close(codec.decode(mode * factor), codec.autoencoder.decode(mode).sample)


def test_autoencoder_is_deterministic_without_a_generator_and_keyed_with_one() -> None:
    codec = tiny_autoencoder()
    image = torch.rand(2, 3, SIDE, SIDE) * 2 - 1

    def sampled(seed: int) -> torch.Tensor:
        return codec.encode(image, torch.Generator().manual_seed(seed))

    assert torch.equal(codec.encode(image), codec.encode(image))
    assert torch.equal(sampled(1), sampled(1))
    assert not torch.allclose(sampled(1), sampled(2))


def test_autoencoder_loss_falls_and_psnr_is_that_of_the_reconstruction() -> None:
    codec = tiny_autoencoder().train()
    image = uint8_images().float() / 127.5 - 1
    optimizer = torch.optim.Adam(codec.parameters(), lr=3e-3)
    losses, psnrs = [], []
    for step in range(12):
        loss, psnr = codec.loss(image, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        psnrs.append(float(psnr))
    assert losses[-1] < 0.9 * losses[0] and psnrs[-1] > psnrs[0]
    with torch.no_grad():
        _, psnr = codec.loss(image, torch.Generator().manual_seed(5))
        posterior = codec.autoencoder.encode(image).latent_dist
        decoded = codec.autoencoder.decode(posterior.sample(torch.Generator().manual_seed(5))).sample
    squared_error = ((decoded - image) / 2).pow(2).mean()  # of pixels on a scale of 1
    assert float(psnr) == pytest.approx(float(-10 * squared_error.log10()), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("space_to_depth", {"channels": 2}, "model.network.codec_config.channels: found 2"),
        ("space_to_depth", {"pach": 4}, "pach"),
        ("space_to_depth", {"patch": 0}, "model.network.codec_config.patch: found 0"),
        ("space_to_depth", {"scaling_factor": 0.0}, "model.network.codec_config.scaling_factor: found 0"),
        ("autoencoder_kl", {**TINY_AUTOENCODER, "latent_chanels": 3}, "model.network.codec_config: .*'latent_chanels'"),
        ("jpeg", {}, "model.network.codec: found 'jpeg'"),
    ],
)
def test_wrong_config(name: str, config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_codec(name, config)


def test_spread_latents_have_as_many_places_as_they_know() -> None:
    codec, image = SpaceToDepthCodec(patch=4, channels=1, scaling_factor=2.0), torch.rand(2, 3, SIDE, SIDE)
    grey = image.mean(1, keepdim=True)
    torch.testing.assert_close(codec.spread(codec.encode(image)), 2 * grey)
    learned = tiny_autoencoder()
    latents = torch.rand(2, learned.latent_channels, 4, 4)
    assert learned.spread(latents) is latents


# ---------------------------------------------------------------- the codec of a generator

LEARNED: dict[str, Any] = {
    "codec": "autoencoder_kl",
    "codec_config": TINY_AUTOENCODER,
    "autoencoder_steps": 1,
    "ema_decay": 0.5,
}


def averaged(**settings: Any) -> ExpressionGenerator:
    """Returns a generator whose average differs from its weights."""
    generator = tiny_generator(**settings)
    assert generator.ema is not None
    generator.ema.update()
    with torch.no_grad():
        for parameter in generator.model.codec.parameters():
            parameter.add_(0.125)
    return generator


@pytest.mark.parametrize("settings", [{}, LEARNED], ids=["space_to_depth", "autoencoder_kl"])
def test_a_codec_is_loaded_without_its_generator(settings: dict[str, Any], tmp_path: Path) -> None:
    generator = averaged(**settings) if settings else tiny_generator()
    paths = [save_checkpoint(generator, tmp_path / "run" / "checkpoints" / "last.ckpt"), tmp_path / "folder"]
    generator.save_trained(paths[1])
    before = torch.get_rng_state()
    for path in [*paths, tmp_path / "run"]:
        codec = load_codec(path)
        whole = ExpressionGenerator.load_trained(path).model.codec
        assert codec.fingerprint() == whole.fingerprint() and not codec.training
        assert not any(parameter.requires_grad for parameter in codec.parameters())
        image = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
        assert torch.equal(codec.encode(image), whole.encode(image))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_codec_of_a_base_is_its_vae(tmp_path: Path) -> None:
    save_base(tmp_path / "base")
    generator = tiny_generator(base=str(tmp_path / "base"), trained="adapter")
    checkpoint = save_checkpoint(generator, tmp_path / "adapter.ckpt")
    expected = generator.model.codec.fingerprint()
    for path in (checkpoint, tmp_path / "base", tmp_path / "base" / "vae"):
        assert load_codec(path).fingerprint() == expected


def test_what_holds_no_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model.latents_of '.*nowhere': no such file or folder, expected"):
        load_codec(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"found no config.json, expected one written by save_trained"):
        load_codec(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt': expected one of an ExpressionGenerator, found another model's"):
        load_codec(tmp_path / "other.ckpt")
    save_base(tmp_path / "base")
    (tmp_path / "base" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"base"):
        load_codec(tmp_path / "base")
