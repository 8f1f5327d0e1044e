"""Reading faces with a frozen generator: what its UNet sees in them, from one pass each or from a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from synfer.faces.face_shape import resize_faces
from synfer.foundation.bfloat16 import bfloat16_autocast
from synfer.networks.au_adapter import embed_action_units
from synfer.networks.diffusion_features import capture, word_prompt
from synfer.networks.feature_cache import FeatureCache, image_keys
from synfer.networks.prediction_type import PredictionType
from synfer.synthesis.diffusion.prediction import predict_noise, signal_and_noise

ReadLatents = Literal["clean", "inverted", "noised"]


class ReadableGenerator(Protocol):
    """What a generator must have to be read; ``ExpressionGenerator`` has it."""

    model: Any
    au_names: tuple[str, ...]
    region_masks: Tensor
    prediction: PredictionType

    @property
    def hparams(self) -> Any:
        """The settings."""

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""

    def to(self, device: Any) -> Any:
        """Moves the weights to a device and returns itself."""

    def network(self, latents: Tensor, timestep: Tensor | int, text: Tensor, au: Tensor) -> Tensor:
        """Runs the UNet: (B, C, h, w), timestep, text (B, L, D), action units (B, A) → (B, C, h, w)."""

    def weights_fingerprint(self) -> str:
        """Returns 16 hex digits over the trained weights."""

    def build_fingerprint(self) -> str:
        """Returns 16 hex digits over what decides the outputs beside the weights."""


class GeneratorReader:
    """Reads faces with a generator's UNet: feature maps of named modules, and an attention map of each word.

    The UNet runs at a small timestep, with one prompt that holds all words and unknown action units, so that the
    conditioning is the same for every face. It is a plain object: the generator is no submodule of whoever reads.

    Args:
        generator: in evaluation mode, without gradients.
        words: what attention maps are wanted of.
        modules: names of UNet submodules whose maps are read; none at all is possible.
        timestep: training timestep t at which the UNet runs.
        latents: what it gets: x0 itself ("clean"), x_t of one DDIM inversion step ("inverted", a second pass), or x_t
            with one fixed draw of noise ("noised").
        map_size: side to which larger maps are pooled.
        runs: whether there is anything to run the UNet for; without it the latents alone are read.

    Attributes:
        fingerprint: of the generator's weights.

    Raises:
        ValueError: an unknown module, or a word that the text encoder cannot take.
    """

    def __init__(
        self,
        generator: ReadableGenerator,
        words: Sequence[str],
        modules: Sequence[str],
        timestep: int,
        latents: ReadLatents,
        map_size: int,
        runs: bool = True,
    ) -> None:
        generator.model.unet._compiled_call_impl = None  # hooks on parts of a compiled network are not heard
        self.generator = generator
        self.modules = tuple(modules)
        self.timestep, self.latents, self.map_size, self.runs = timestep, latents, map_size, runs
        self.fingerprint = generator.weights_fingerprint()
        self.prompt, self._word_positions = word_prompt(generator.model.tokenizer, words)
        self._text: Tensor | None = None
        face = self.encode(torch.zeros(1, 3, self.image_size, self.image_size, device=generator.device))
        self.spatial_latents: tuple[int, int] = _shape(generator.model.codec.spread(face))
        """Channels and side of the latents as a convolutional network takes them."""
        self.shapes = [_shape(maps) for maps in self.run(face)]
        """Channels and side of each map, feature maps first."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the faces that the generator makes."""
        return self.generator.hparams["image_size"]

    @property
    def feature_width(self) -> int:
        """Numbers per face that are kept of one pass."""
        return sum(channels * side * side for channels, side in self.shapes)

    def to(self, device: torch.device) -> GeneratorReader:
        """Moves the generator."""
        if self.generator.device != device:
            self.generator.to(device)
        return self

    def own_precision(self) -> torch.autocast:
        """The generator's, whatever the training runs in: cached features and predictions must not depend on that."""
        enabled = bool(self.generator.hparams["execution"]["bf16_sampling"])
        return bfloat16_autocast(self.generator.device, enabled, "model.execution.bf16_sampling of the generator")

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Returns the clean latents (B, C, h, w) of images in [0, 1], (B, 3, H, W)."""
        image = resize_faces(image, self.image_size)
        with self.own_precision():
            return self.generator.model.codec.encode(image * 2 - 1)

    def spread(self, latents: Tensor) -> Tensor:
        """Returns latents as a convolutional network takes them."""
        return self.generator.model.codec.spread(latents)

    @torch.no_grad()
    def run(self, clean: Tensor) -> list[Tensor]:
        """Returns the maps of clean latents (B, C, h, w): feature maps, then attention maps, float32."""
        if not self.runs:
            return []
        generator, device = self.generator, self.generator.device
        with self.own_precision():
            if self._text is None or self._text.device != device:
                self._text = generator.model.encode_text([self.prompt]).float()
            text = self._text.expand(len(clean), -1, -1)
            unknown = torch.full((len(clean), len(generator.au_names)), torch.nan, device=device)
            au = embed_action_units(unknown, generator.region_masks)
            latents = self._at_timestep(clean, text, au)
            # Attention maps also where the head has no use for them: one cache serves every ablation.
            with capture(generator.model.unet, self.modules, self._word_positions, self.map_size) as captured:
                generator.network(latents, self.timestep, text, au)
        maps = [captured.features[name] for name in self.modules]
        return maps + [captured.attention[name] for name in sorted(captured.attention)]

    def _at_timestep(self, clean: Tensor, text: Tensor, au: Tensor) -> Tensor:
        if self.latents == "clean":
            return clean
        signal, noise = signal_and_noise(self.generator.model.scheduler.alphas_cumprod, self.timestep, clean)
        if self.latents == "noised":
            draw = torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(0))
            return signal * clean + noise * draw.to(clean)
        # One DDIM inversion step from x0 (ᾱ = 1) to t; as in inversion.py, ε is taken at the clean latents.
        output = self.generator.network(clean, self.timestep, text, au).float()
        eps = predict_noise(output, clean, signal, noise, self.generator.prediction)
        return signal * clean + noise * eps

    def read(
        self, image: Tensor, cache: FeatureCache | None = None, mirror_too: bool = False, latents_too: bool = False
    ) -> list[Tensor]:
        """Returns the maps of images in [0, 1], (B, 3, H, W), and before them, if wanted, their latents.

        Args:
            image: the images; with a cache they are rounded to whole 255ths, by which they are known.
            cache: where to look, and where to leave what is new.
            mirror_too: of an image that is new also compute the mirror image.
            latents_too: whether the latents are wanted, which are not cached.
        """
        maps = None
        if cache is not None:
            image = (image * 255).round() / 255
            maps = self._cached(image, cache, mirror_too)
            if not latents_too:
                return maps
        clean = self.encode(image)
        maps = self.run(clean) if maps is None else maps
        return [self.spread(clean), *maps] if latents_too else maps

    def _cached(self, image: Tensor, cache: FeatureCache, mirror_too: bool) -> list[Tensor]:
        keys = _keys(image)
        new = cache.missing(keys)
        if new:
            fresh = image[new]
            for faces in (fresh, fresh.flip(-1)) if mirror_too else (fresh,):
                maps = [m.half().flatten(1).cpu().numpy() for m in self.run(self.encode(faces))]
                cache.add(_keys(faces), np.concatenate(maps, 1))  # not torch.cat: autocast on a CPU knows no float16
        flat = torch.from_numpy(cache.rows(keys)).to(image.device).float()
        sizes = [channels * side * side for channels, side in self.shapes]
        parts = flat.split(sizes, 1)
        return [p.unflatten(1, (c, s, s)) for p, (c, s) in zip(parts, self.shapes, strict=True)]

    def cache_identity(self) -> dict[str, Any]:
        """Returns what cached features depend on besides the image."""
        return {
            "generator": self.fingerprint,
            "build": self.generator.build_fingerprint(),
            "timestep": self.timestep,
            "latents": self.latents,
            "modules": list(self.modules),
            "prompt": self.prompt,
            "attention": True,
            "map_size": self.map_size,
            "image_size": self.image_size,
            "bf16": bool(self.generator.hparams["execution"]["bf16_sampling"]),
        }


def _shape(maps: Tensor) -> tuple[int, int]:
    return maps.shape[1], maps.shape[-1]


def _keys(image: Tensor) -> list[bytes]:
    """Returns the cache's keys of images in [0, 1] that are whole 255ths."""
    return image_keys((image * 255).round().to(torch.uint8).cpu().contiguous().numpy())
