"""Views of faces for pre-training: cropped, mirrored, recoloured and blurred in batches, on the device.

A crop that is resized, mirrored and blurred takes each row of pixels, and each column, to a weighted sum of others. So
a whole view is two small products of matrices per face and a 3 × 3 matrix of its colours; nothing is done face by face.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from synfer.foundation.counter_based_random import keyed_uniform, keys_of
from synfer.foundation.random_streams import Stream

VIEW_COLUMNS = 16
"""Random numbers for one view of one face."""

_LUMINANCE = (0.299, 0.587, 0.114)
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class ViewSettings:
    """How the views of a face differ; the defaults suit faces of 48 pixels.

    Args:
        crop: least and greatest share of the picture's area that is seen, in (0, 1]. A tenth of a small face shows no
            expression.
        aspect: least and greatest width ÷ height of the crop.
        flip: probability of a mirror image.
        jitter: probability that brightness, contrast, saturation and hue change.
        brightness: largest relative change, either way, in [0, 1].
        contrast: likewise.
        saturation: likewise.
        hue: largest turn of the hues, either way, as a share of the circle, in [0, 0.5].
        grey: probability that colours go.
        blur: probability of a Gaussian blur, of the first view and the second.
        blur_sigma: least and greatest standard deviation of it, in pixels of the view per 48 of its side.
        solarise: probability that the upper half of the brightness is inverted, of the first view and the second.

    Raises:
        ValueError: a value outside its range.
    """

    crop: list[float] = field(default_factory=lambda: [0.3, 1.0])
    aspect: list[float] = field(default_factory=lambda: [0.75, 1.3333])
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.2
    blur: list[float] = field(default_factory=lambda: [0.5, 0.5])
    blur_sigma: list[float] = field(default_factory=lambda: [0.1, 1.0])
    solarise: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def __post_init__(self) -> None:
        for name in ("crop", "aspect", "blur", "blur_sigma", "solarise"):
            _check(len(getattr(self, name)) == 2, name, getattr(self, name), "two numbers")
        _check(0 < self.crop[0] <= self.crop[1] <= 1, "crop", self.crop, "two rising numbers in (0, 1]")
        _check(0 < self.aspect[0] <= self.aspect[1], "aspect", self.aspect, "two rising numbers above 0")
        _check(
            0 < self.blur_sigma[0] <= self.blur_sigma[1], "blur_sigma", self.blur_sigma, "two rising numbers above 0"
        )
        for name in ("flip", "jitter", "brightness", "contrast", "saturation", "grey"):
            _check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number in [0, 1]")
        for name in ("blur", "solarise"):
            _check(all(0 <= p <= 1 for p in getattr(self, name)), name, getattr(self, name), "two numbers in [0, 1]")
        _check(0 <= self.hue <= 0.5, "hue", self.hue, "a number in [0, 0.5]")


def view_numbers(sample_id: Sequence[str], view: int, seed: int, epoch: int, step: int) -> Tensor:
    """Returns random numbers for :func:`make_view`, the same for the same face at the same step, whatever its batch.

    Args:
        sample_id: B ids. A face that is in a batch twice gets other numbers the second time.
        view: 0 or 1.
        seed: of the run.
        epoch: of the training.
        step: optimiser steps so far.

    Returns:
        float32 (B, 16) in [0, 1).
    """
    seen: dict[str, int] = {}
    names = []
    for name in sample_id:
        seen[name] = seen.get(name, -1) + 1
        names.append(name if not seen[name] else f"{name}, again {seen[name]}")
    numbers = keyed_uniform(keys_of(names), VIEW_COLUMNS, seed, Stream.VIEWS, epoch, step, view)
    return torch.from_numpy(np.minimum(numbers, 1 - 2**-24).astype(np.float32))


def make_view(image: Tensor, settings: ViewSettings, uniform: Tensor, view: int, size: int) -> Tensor:
    """Returns one view of each face.

    In this order: crop and resize (antialiased), mirror, blur; brightness, contrast around the view's mean luminance,
    saturation, hue, or no colours at all; then what leaves [0, 1] is cut, and perhaps inverted. (Blur and colours may
    change places: both are linear.)

    Args:
        image: float in [0, 1], RGB, (B, 3, H, W).
        settings: strengths.
        uniform: numbers in [0, 1), (B, 16), on any device.
        view: 0 or 1: which of the two probabilities of blur and solarisation holds.
        size: side of the view in pixels.

    Returns:
        float32 in [0, 1], (B, 3, size, size).

    Raises:
        ValueError: the random numbers do not fit the batch.
    """
    if uniform.shape != (len(image), VIEW_COLUMNS):
        raise ValueError(f"view: found random numbers {tuple(uniform.shape)}, expected {(len(image), VIEW_COLUMNS)}")
    u = uniform.to(device=image.device, dtype=torch.float32)
    with torch.autocast(image.device.type, enabled=False):
        rows, columns = _resampling(image.shape[-2:], settings, u, view, size)
        seen = rows[:, None] @ image.float() @ columns[:, None].transpose(-1, -2)
        return _solarise(_recolour(seen, settings, u), u, settings.solarise[view])


def _resampling(shape: Sequence[int], settings: ViewSettings, u: Tensor, view: int, size: int) -> tuple[Tensor, Tensor]:
    """Returns weights of the picture's rows in those of the view, (B, size, H), and of its columns, (B, size, W)."""
    height, width = shape
    low, high = settings.crop
    side = ((low + (high - low) * u[:, 0]) * height * width).sqrt()
    narrow, wide = (math.log(ratio) for ratio in settings.aspect)
    stretch = ((narrow + (wide - narrow) * u[:, 1]) / 2).exp()
    # A crop that would be longer than the picture is cut to it.
    tall, broad = (side / stretch).clamp(max=height), (side * stretch).clamp(max=width)
    rows = _resize_weights(height, u[:, 2] * (height - tall), tall, size)
    columns = _resize_weights(width, u[:, 3] * (width - broad), broad, size)
    mirrored = (u[:, 4] < settings.flip)[:, None, None]
    columns = torch.where(mirrored, columns.flip(1), columns)
    if settings.blur[view]:
        blur = _blur_weights(settings, u, view, size)
        rows, columns = blur @ rows, blur @ columns
    return rows, columns


def _resize_weights(source: int, start: Tensor, length: Tensor, size: int) -> Tensor:
    """Returns the weights (B, size, source) of bilinear resampling of [start, start + length).

    Where that makes smaller, triangles are as wide as a step, so that nothing is skipped.
    """
    step = (length / size)[:, None, None]
    place = torch.arange(size, device=start.device, dtype=torch.float32)[None, :, None]
    centre = start[:, None, None] + (place + 0.5) * step - 0.5
    pixel = torch.arange(source, device=start.device, dtype=torch.float32)[None, None, :]
    weights = (1 - (pixel - centre.clamp(0, source - 1)).abs() / step.clamp_min(1)).clamp_min(0)
    return weights / weights.sum(-1, keepdim=True)


def _blur_weights(settings: ViewSettings, u: Tensor, view: int, size: int) -> Tensor:
    """Returns the weights (B, size, size) of a Gaussian blur, the identity where there is none."""
    low, high = settings.blur_sigma
    sigma = (low + (high - low) * u[:, 6]) * size / 48
    place = torch.arange(size, device=u.device, dtype=torch.float32)
    squared = (place[:, None] - place[None, :]) ** 2
    weights = (-squared[None] / (2 * sigma[:, None, None] ** 2)).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    chosen = (u[:, 5] < settings.blur[view])[:, None, None]
    return torch.where(chosen, weights, torch.eye(size, device=u.device))


def _recolour(image: Tensor, settings: ViewSettings, u: Tensor) -> Tensor:
    """Returns images with other colours: one 3 × 3 matrix and one shift for each."""
    luminance = torch.tensor(_LUMINANCE, device=u.device)
    to_grey = luminance.expand(3, 3)
    jittered = u[:, 7] < settings.jitter
    brightness, contrast, saturation = (
        torch.where(jittered, 1 + strength * (2 * u[:, column] - 1), 1.0)
        for strength, column in ((settings.brightness, 8), (settings.contrast, 9), (settings.saturation, 10))
    )
    saturation = torch.where(u[:, 12] < settings.grey, 0.0, saturation)[:, None, None]
    matrix = saturation * torch.eye(3, device=u.device) + (1 - saturation) * to_grey
    if settings.hue:
        angle = torch.where(jittered, 2 * math.pi * settings.hue * (2 * u[:, 11] - 1), 0.0)
        matrix = _turned_hues(angle) @ matrix
    scale = (brightness * contrast)[:, None, None]
    mean = (image.mean((2, 3)) @ luminance * brightness)[:, None, None]
    coloured = (scale * matrix) @ image.flatten(2) + (1 - contrast)[:, None, None] * mean
    return coloured.clamp(0, 1).view_as(image)


def _turned_hues(angle: Tensor) -> Tensor:
    """Returns the matrices (B, 3, 3) that turn hues by angles (B,), at the same luminance (a turn in YIQ)."""
    to_yiq = torch.tensor(_TO_YIQ, device=angle.device)
    one, zero, cos, sin = torch.ones_like(angle), torch.zeros_like(angle), angle.cos(), angle.sin()
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq


def _solarise(image: Tensor, u: Tensor, probability: float) -> Tensor:
    if not probability:
        return image
    chosen = (u[:, 13] < probability)[:, None, None, None]
    return torch.where(chosen & (image >= 0.5), 1 - image, image)


def _check(fine: bool, name: str, found: object, expected: str) -> None:
    if not fine:
        raise ValueError(f"model.views.{name}={found}: expected {expected}")
