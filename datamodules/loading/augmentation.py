"""Random changes of training faces, made on the device for the whole batch at once.

Every random number comes in from outside, one row per sample, so what happens to a face depends on its own key alone:
not on its place in the batch, its rank or the batch size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

UNIFORM_COLUMNS = 12
"""Random numbers :func:`augment` takes per sample."""

_ERASED_AREA = (0.02, 0.2)  # share of the picture, as in Zhong et al., arXiv:1708.04896, with a smaller upper end
_ERASED_ASPECT = (0.4, 2.5)


@dataclass(frozen=True)
class Augmentation:
    """How strongly training faces are changed.

    Attributes:
        enabled: false leaves training faces as they are.
        flip: probability of a left-right flip, in [0, 1]; the data module mirrors one-sided action units with the face.
        rotation: largest angle in degrees, either way, in [0, 180].
        translate: largest shift along each axis, as a share of the side, in [0, 1).
        scale: largest relative change of size, either way, in [0, 1).
        contrast: largest relative change of contrast, either way, in [0, 1].
        brightness: largest shift of brightness, either way, of a full range of 1, in [0, 1].
        erasing: probability that one rectangle is painted over with the face's mean, in [0, 1].
        cached_views: how many views of a face there are, ≥ 1; every use draws one of them. They are the same in every
            epoch and in every run, whatever its seed, so that features of them can be kept. null = a new one each time.
        uncached_fraction: with ``cached_views``: share of the uses, in [0, 0.9], that draw none of them but a new one.
            The batch says which (``is_uncached``).

    Raises:
        ValueError: a value outside its range.
    """

    enabled: bool = True
    flip: float = 0.5
    rotation: float = 10.0
    translate: float = 0.08
    scale: float = 0.1
    contrast: float = 0.2
    brightness: float = 0.1
    erasing: float = 0.2
    cached_views: int | None = None
    uncached_fraction: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "flip": (0.0, 1.0),
            "rotation": (0.0, 180.0),
            "translate": (0.0, 0.999),
            "scale": (0.0, 0.999),
            "contrast": (0.0, 1.0),
            "brightness": (0.0, 1.0),
            "erasing": (0.0, 1.0),
            "uncached_fraction": (0.0, 0.9),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:  # also false for NaN
                raise ValueError(f"data.augmentation.{name}={value}: expected a number in [{low:g}, {high:g}]")
        if self.cached_views is not None and self.cached_views < 1:
            raise ValueError(f"data.augmentation.cached_views={self.cached_views}: expected at least 1, or null")
        if self.uncached_fraction > 0 and self.cached_views is None:
            raise ValueError(
                f"data.augmentation.uncached_fraction={self.uncached_fraction} with cached_views=null, where every use "
                "is a new one: expected data.augmentation.cached_views=6 or so, or uncached_fraction=0"
            )


def augment(image: Tensor, settings: Augmentation, uniform: Tensor) -> Tensor:
    """Changes each face of a batch by its own random numbers.

    Rotation, scale, shift and flip are one affine map, hence one ``grid_sample`` for the batch; what comes in from
    outside the picture is its reflection.

    Args:
        image: float in [0, 1], (B, C, H, W), with C = 1 for grey pictures, which is a third of the work.
        settings: strengths.
        uniform: numbers in [0, 1), (B, 12), on any device.

    Returns:
        float in [0, 1], (B, C, H, W), of the input's dtype.

    Raises:
        ValueError: the random numbers do not fit the batch.
    """
    if uniform.shape != (len(image), UNIFORM_COLUMNS):
        raise ValueError(
            f"augment: found random numbers {tuple(uniform.shape)}, expected {(len(image), UNIFORM_COLUMNS)}"
        )
    if not settings.enabled:
        return image
    u = uniform.to(device=image.device, dtype=torch.float32)
    if settings.flip or settings.rotation or settings.translate or settings.scale:
        image = _affine(image, settings, u)
    if settings.contrast or settings.brightness:
        image = _contrast_brightness(image, settings, u)
    if settings.erasing:
        image = _erase(image, settings, u)
    return image


def is_flipped(settings: Augmentation, uniform: Tensor) -> Tensor:
    """Returns which faces :func:`augment` flips with these numbers, bool (B,)."""
    return uniform[:, 0] < (settings.flip if settings.enabled else 0.0)


def _signed(u: Tensor) -> Tensor:
    """Maps [0, 1) to [−1, 1)."""
    return 2 * u - 1


def _affine(image: Tensor, settings: Augmentation, u: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    # Maps output to input coordinates, both in [−1, 1] with the pixel centres inside (align_corners=False).
    mirror = torch.where(is_flipped(settings, u), -1.0, 1.0)
    angle = math.radians(settings.rotation) * _signed(u[:, 1])
    zoom = 1 / (1 + settings.scale * _signed(u[:, 2]))
    shift_x, shift_y = (2 * settings.translate * _signed(u[:, column]) for column in (3, 4))
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    aspect = height / width  # keeps a rotation a rotation on pictures that are not square
    x = (2 * torch.arange(width, device=u.device, dtype=u.dtype) + 1) / width - 1
    y = (2 * torch.arange(height, device=u.device, dtype=u.dtype) + 1) / height - 1
    # Sums of outer products instead of affine_grid's matrix product: bit-equal whatever the batch size.
    along_x, along_y = x.view(1, 1, -1), y.view(1, -1, 1)
    per_sample = (mirror * cos, aspect * sin, shift_x, mirror * sin / aspect, cos, shift_y)
    xx, xy, x0, yx, yy, y0 = (value.view(-1, 1, 1) for value in per_sample)
    column = xx * along_x + (x0 - xy * along_y)
    row = yx * along_x + (y0 + yy * along_y)
    grid = torch.stack((column, row), dim=-1).to(image.dtype)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _contrast_brightness(image: Tensor, settings: Augmentation, u: Tensor) -> Tensor:
    gain = (1 + settings.contrast * _signed(u[:, 5])).to(image.dtype).view(-1, 1, 1, 1)
    shift = (settings.brightness * _signed(u[:, 6])).to(image.dtype).view(-1, 1, 1, 1)
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return torch.addcmul(mean * (1 - gain) + shift, image, gain).clamp_(0, 1)


def _erase(image: Tensor, settings: Augmentation, u: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    low, high = _ERASED_AREA
    area = low + (high - low) * u[:, 8]
    log_low, log_high = (math.log(value) for value in _ERASED_ASPECT)
    aspect = torch.exp(log_low + (log_high - log_low) * u[:, 9])
    half_height = (area * aspect).sqrt() / 2
    half_width = (area / aspect).sqrt() / 2
    # The centre may lie anywhere; a rectangle near the edge is cut off there.
    x = (torch.arange(width, device=u.device, dtype=u.dtype) + 0.5) / width
    y = (torch.arange(height, device=u.device, dtype=u.dtype) + 0.5) / height
    in_x = (x.view(1, -1) - u[:, 10:11]).abs() < half_width.view(-1, 1)
    in_y = (y.view(1, -1) - u[:, 11:12]).abs() < half_height.view(-1, 1)
    chosen = (u[:, 7] < settings.erasing).view(-1, 1)
    mask = ((in_y & chosen).unsqueeze(2) & in_x.unsqueeze(1)).unsqueeze(1)
    return torch.where(mask, image.mean(dim=(1, 2, 3), keepdim=True), image)
