"""Images to latents and back: one interface over an exact rearrangement and over a learned autoencoder."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.random import fork_rng

from synfer.foundation.checkpoint_file import find_checkpoint
from synfer.foundation.file_reading import reading
from synfer.foundation.fingerprint import fingerprint
from synfer.foundation.json_file import read_json
from synfer.foundation.module_file import CONFIG_FILE, ModuleFormat
from synfer.foundation.validate import check_config_keys
from synfer.networks.quiet_loading import quiet_loading
from synfer.networks.stable_diffusion.base_folder import BaseFolder, find_base
from synfer.networks.stable_diffusion.number_format import in_stored_format
from synfer.networks.stable_diffusion.part import load_part

GENERATOR_FILE = ModuleFormat("diffusion", "model", "ExpressionGenerator", name="generator")
"""How the files of a generator, of which a codec is a part, are laid out."""
_WEIGHTS = "model.codec."  # how the names of a codec's weights begin in them


class LatentCodec(nn.Module, ABC):
    """Encodes images for the diffusion model and decodes its latents.

    Attributes:
        latent_channels: channels of a latent.
        downscale: image size ÷ latent size.
        learned: whether the codec has weights to train or to load.
    """

    latent_channels: int
    downscale: int
    learned: bool

    @abstractmethod
    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents of about unit variance, (B, C, h, w), for images in [−1, 1], (B, 3, H, W)."""

    def fingerprint(self) -> str:
        """Returns 16 hex digits of SHA-256 over settings and weights: equal codecs give equal latents."""
        return fingerprint(self.state_dict().items(), self._settings())

    @abstractmethod
    def _settings(self) -> str:
        """Returns what decides the latents beside the weights."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Returns images of about [−1, 1], (B, 3, H, W): differentiable, not clamped."""

    def spread(self, latents: Tensor) -> Tensor:
        """Returns latents (B, C, h, w) laid out in space as finely as they know it, for a network of convolutions."""
        return latents


class SpaceToDepthCodec(LatentCodec):
    """Invertible codec without weights: each patch of pixels becomes the channels of one latent position.

    For small images (48 px) it needs no training and loses nothing: 48×48×c ↔ 12×12×16c with ``patch=4``.

    Args:
        patch: side of a patch in pixels.
        channels: 3 for colour; 1 for grey (the mean of RGB is coded, decoding repeats it).
        scaling_factor: multiplies the pixels, so that latents have about unit variance.
    """

    learned = False

    def __init__(self, patch: int = 4, channels: int = 1, scaling_factor: float = 2.0) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"model.network.codec_config.channels: found {channels}, expected 1 (grey) or 3 (RGB)")
        if patch < 1:
            raise ValueError(f"model.network.codec_config.patch: found {patch}, expected at least 1 pixel")
        if scaling_factor <= 0:
            raise ValueError(
                f"model.network.codec_config.scaling_factor: found {scaling_factor}, expected a number above 0"
            )
        self.channels = channels
        self.downscale = patch
        self.latent_channels = channels * patch * patch
        self.scaling_factor = scaling_factor

    def _settings(self) -> str:
        return f"space_to_depth {self.downscale} {self.channels} {self.scaling_factor}"

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents (B, C, h, w) of images in [−1, 1], (B, 3, H, W)."""
        if self.channels == 1:
            image = image.mean(1, keepdim=True)
        return F.pixel_unshuffle(image, self.downscale) * self.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Returns images of about [−1, 1], (B, 3, H, W), of latents (B, C, h, w)."""
        return F.pixel_shuffle(latents / self.scaling_factor, self.downscale).expand(-1, 3, -1, -1)

    def spread(self, latents: Tensor) -> Tensor:
        """Returns the pixels that the channels of each place are: (B, 1 or 3, H, W), still scaled."""
        return F.pixel_shuffle(latents, self.downscale)


class AutoencoderKLCodec(LatentCodec):
    """A diffusers ``AutoencoderKL`` behind the codec interface (Stable Diffusion's, or a small one from a config).

    Args:
        autoencoder: a ``diffusers.AutoencoderKL``.
    """

    learned = True

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder: Any = autoencoder
        config = autoencoder.config
        self.latent_channels = config.latent_channels
        self.downscale = 2 ** (len(config.block_out_channels) - 1)

    def _settings(self) -> str:
        return f"autoencoder_kl {self.autoencoder.config.scaling_factor}"

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents (B, C, h, w) of images in [−1, 1], (B, 3, H, W)."""
        with in_stored_format(self.autoencoder):
            posterior = self.autoencoder.encode(image).latent_dist
        latents = posterior.sample(generator) if generator is not None else posterior.mode()
        return (latents * self.autoencoder.config.scaling_factor).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Returns images of about [−1, 1], (B, 3, H, W), of latents (B, C, h, w)."""
        with in_stored_format(self.autoencoder):
            return self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample

    def loss(self, image: Tensor, generator: torch.Generator, kl_weight: float = 1e-6) -> tuple[Tensor, Tensor]:
        """Returns the training loss (L1 + L2 reconstruction + KL, Kingma and Welling 2014) and the PSNR in dB.

        Args:
            image: float in [−1, 1], (B, 3, H, W).
            generator: noise of the posterior sample.
            kl_weight: weight of the KL term, as in latent diffusion (Rombach et al. 2022).
        """
        posterior = self.autoencoder.encode(image).latent_dist
        decoded = self.autoencoder.decode(posterior.sample(generator)).sample.float()
        squared = F.mse_loss(decoded, image)
        kl = posterior.kl().mean() / image[0].numel()
        psnr = 10 * torch.log10(4 / squared.detach().clamp_min(1e-12))
        return F.l1_loss(decoded, image) + squared + kl_weight * kl, psnr


def build_codec(name: str, config: dict[str, Any]) -> LatentCodec:
    """Builds a codec from its config.

    Args:
        name: "space_to_depth" or "autoencoder_kl".
        config: arguments of :class:`SpaceToDepthCodec`, or the config of a ``diffusers.AutoencoderKL``.

    Raises:
        ValueError: unknown name or unknown key.
    """
    if name == "space_to_depth":
        try:
            return SpaceToDepthCodec(**config)
        except TypeError as error:
            raise ValueError(f"model.network.codec_config: {error}") from error
    if name == "autoencoder_kl":
        from diffusers import AutoencoderKL

        check_config_keys("model.network.codec_config", config, inspect.signature(AutoencoderKL.__init__).parameters)
        return AutoencoderKLCodec(AutoencoderKL.from_config(config))
    raise ValueError(f"model.network.codec: found '{name}', expected 'space_to_depth' or 'autoencoder_kl'")


@fork_rng(devices=[])  # building networks draws random numbers, and must not disturb a training beside
def load_codec(path: str | Path) -> LatentCodec:
    """Loads the codec of a trained generator, or of Stable Diffusion, and nothing else of it.

    Args:
        path: a generator's checkpoint, run folder or folder of ``save_trained``; a folder in diffusers' layout, or the
            folder ``vae`` of one.

    Returns:
        The codec in eval mode, frozen, with averaged weights where there are any.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: something else, damaged, or weights that are not finite.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"model.latents_of '{path}': no such file or folder, expected a trained generator")
    place = find_checkpoint(path, "generator")
    with reading("generator", place, "a trained generator, or a diffusers folder with a vae"):
        codec = _codec_of_diffusers(place)
        if codec is None:
            stored = (GENERATOR_FILE.read_folder if place.is_dir() else GENERATOR_FILE.read_checkpoint)(place)
            base = stored.settings.get("base")
            codec = (
                _codec_of_generator(stored.settings, stored.weights)
                if base is None
                else _autoencoder(find_base(base, ["vae"]), "vae")
            )
    return codec.eval().requires_grad_(False)


def _codec_of_diffusers(place: Path) -> LatentCodec | None:
    """Returns the codec of a folder in diffusers' layout, or of its ``vae``; None where it is none."""
    if (place / "vae").is_dir():
        return _autoencoder(BaseFolder(str(place), place), "vae")
    config = place / CONFIG_FILE
    if config.is_file() and read_json(config, "config of a codec").get("_class_name") == "AutoencoderKL":
        return _autoencoder(BaseFolder(str(place.parent), place.parent), place.name)
    return None


def _autoencoder(base: BaseFolder, part: str) -> LatentCodec:
    from diffusers import AutoencoderKL

    with quiet_loading():
        return AutoencoderKLCodec(load_part(base, part, AutoencoderKL))


def _codec_of_generator(settings: dict[str, Any], weights: dict[str, Tensor]) -> LatentCodec:
    network = settings["network"]
    codec = build_codec(network["codec"], network["codec_config"] or {})
    own = {name.removeprefix(_WEIGHTS): tensor for name, tensor in weights.items() if name.startswith(_WEIGHTS)}
    codec.load_state_dict(own)
    return codec
