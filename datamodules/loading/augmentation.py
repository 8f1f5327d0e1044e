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

from datamodules.loading.large_tensor import large_empty

UNIFORM_COLUMNS = 12
"""Random numbers :func:`augment` takes per sample."""

_PIECE = 2**18
"""Numbers that are worked on at once on a CPU: what lies in its caches, and in buffers that are used again."""

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
        image: float in [0, 1] or uint8, (B, C, H, W), with C = 1 for grey pictures, which is a third of the work.
        settings: strengths.
        uniform: numbers in [0, 1), (B, 12), on any device.

    Returns:
        float in [0, 1], (B, C, H, W), of the input's dtype; float32 of uint8.

    Raises:
        ValueError: the random numbers do not fit the batch.
    """
    if uniform.shape != (len(image), UNIFORM_COLUMNS):
        raise ValueError(
            f"augment: found random numbers {tuple(uniform.shape)}, expected {(len(image), UNIFORM_COLUMNS)}"
        )
    if not settings.enabled:
        return _as_float(image)
    numbers = _Numbers.of(image, settings, uniform.to(device=image.device, dtype=torch.float32))
    at_once = max(torch.get_num_threads(), _PIECE // max(1, image[:1].numel()))
    if image.device.type != "cpu" or len(image) <= at_once:
        return _augmented(_as_float(image), numbers)
    changed = large_empty(image.shape, _float_type(image))
    source = torch.empty(at_once, *image.shape[1:], dtype=changed.dtype)
    grid = torch.empty(at_once, *image.shape[-2:], 2)
    for start in range(0, len(image), at_once):
        piece = slice(start, start + at_once)
        part = image[piece]
        _augmented(_as_float(part, source[: len(part)]), numbers.of_piece(piece), grid[: len(part)], changed[piece])
    if numbers.erased:
        _erase_in_place(changed, *numbers.erased)
    return changed


def _augmented(image: Tensor, numbers: _Numbers, grid: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Returns faces (B, C, H, W) as they are changed.

    Into ``out`` where given, and without erasing; ``grid`` (B, H, W, 2) is written over.
    """
    if numbers.affine:
        image = _affine(image, numbers.affine, grid)
    if numbers.contrast:
        gain, shift = numbers.contrast
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        image = torch.addcmul(mean * (1 - gain) + shift, image, gain, out=out).clamp_(0, 1)
    if out is not None:
        return image if image is out else out.copy_(image)
    return _erase(image, *numbers.erased) if numbers.erased else image


@dataclass(frozen=True)
class _Numbers:
    """What happens to each face of a batch, each tensor with B rows; () where a change is switched off.

    Attributes:
        affine: what the columns (B, 1, W) and the rows (B, H, 1) of the output add to the input's column, and to its
            row, in [−1, 1] with the pixel centres inside (``align_corners=False``).
        contrast: gain and shift, (B, 1, 1, 1).
        erased: which rows (B, H) and which columns (B, W) a rectangle has; none where there is no rectangle.
    """

    affine: tuple[Tensor, ...] = ()
    contrast: tuple[Tensor, ...] = ()
    erased: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, image: Tensor, settings: Augmentation, u: Tensor) -> _Numbers:
        """Returns those that random numbers (B, 12) stand for."""
        size, dtype = (image.shape[-2], image.shape[-1]), _float_type(image)
        moves = settings.flip or settings.rotation or settings.translate or settings.scale
        return cls(
            affine=_affine_numbers(size, settings, u) if moves else (),
            contrast=_contrast_numbers(dtype, settings, u) if settings.contrast or settings.brightness else (),
            erased=_erased_numbers(size, settings, u) if settings.erasing else (),
        )

    def of_piece(self, piece: slice) -> _Numbers:
        """Returns those of some of the faces, without erasing."""
        return _Numbers(tuple(one[piece] for one in self.affine), tuple(one[piece] for one in self.contrast))


def _float_type(image: Tensor) -> torch.dtype:
    return torch.float32 if image.dtype == torch.uint8 else image.dtype


def _as_float(image: Tensor, out: Tensor | None = None) -> Tensor:
    """Returns uint8 as float32 in [0, 1], in ``out`` where given; floats as they are."""
    if image.dtype != torch.uint8:
        return image
    return image.float().div_(255) if out is None else out.copy_(image).div_(255)


def is_flipped(settings: Augmentation, uniform: Tensor) -> Tensor:
    """Returns which faces :func:`augment` flips with these numbers, bool (B,)."""
    return uniform[:, 0] < (settings.flip if settings.enabled else 0.0)


def _signed(u: Tensor) -> Tensor:
    """Maps [0, 1) to [−1, 1)."""
    return 2 * u - 1


def _affine_numbers(size: tuple[int, int], settings: Augmentation, u: Tensor) -> tuple[Tensor, ...]:
    height, width = size
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
    return xx * along_x, x0 - xy * along_y, yx * along_x, y0 + yy * along_y


def _affine(image: Tensor, numbers: tuple[Tensor, ...], grid: Tensor | None) -> Tensor:
    column_of_x, column_of_y, row_of_x, row_of_y = numbers
    if grid is None:
        grid = column_of_x.new_empty(len(image), *image.shape[-2:], 2)
    torch.add(column_of_x, column_of_y, out=grid[..., 0])
    torch.add(row_of_x, row_of_y, out=grid[..., 1])
    where = grid.to(image.dtype)
    return F.grid_sample(image, where, mode="bilinear", padding_mode="reflection", align_corners=False)


def _contrast_numbers(dtype: torch.dtype, settings: Augmentation, u: Tensor) -> tuple[Tensor, ...]:
    gain = (1 + settings.contrast * _signed(u[:, 5])).to(dtype).view(-1, 1, 1, 1)
    shift = (settings.brightness * _signed(u[:, 6])).to(dtype).view(-1, 1, 1, 1)
    return gain, shift


def _erased_numbers(size: tuple[int, int], settings: Augmentation, u: Tensor) -> tuple[Tensor, ...]:
    height, width = size
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
    return in_y & (u[:, 7] < settings.erasing).view(-1, 1), in_x


def _erase(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    mask = (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
    return torch.where(mask, image.mean(dim=(1, 2, 3), keepdim=True), image)


def _erase_in_place(image: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Does the same on a CPU, where a few rectangles cost less than a mask of every pixel."""
    chosen = (rows.any(1) & columns.any(1)).nonzero().flatten()
    for place in chosen.tolist():
        down, across = rows[place].nonzero(), columns[place].nonzero()
        mean = image[place : place + 1].mean(dim=(1, 2, 3))
        image[place, :, int(down[0]) : int(down[-1]) + 1, int(across[0]) : int(across[-1]) + 1] = mean
