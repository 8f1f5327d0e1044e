"""The one shape of a face: what is too wide or too high is cut off around the centre, and nothing is ever squashed.

Readers, the data module, layout sources, classifiers, generators and voters from outside all see the same part of a
picture, whichever of them has to change its size.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def central_part(height: int, width: int, size: tuple[int, int]) -> tuple[slice, slice]:
    """Returns the rows and columns of the largest central part of an image that has the shape of ``size``.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        size: (height, width), of which only the proportion counts; a square gives the central square.
    """
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def cut_faces(image: Tensor, shape: tuple[int, int] = (1, 1)) -> Tensor:
    """Returns the :func:`central_part` of images (…, H, W), a view; by default the central square."""
    height, width = image.shape[-2:]
    rows, columns = central_part(height, width, shape)
    return image[..., rows, columns]


def resize_faces(image: Tensor, size: int | tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Cuts the central part out of images and resizes it (antialiased); images of that size are returned as they are.

    Args:
        image: (B, C, H, W), float or uint8.
        size: side in pixels of a square, or (height, width).
        mode: "bilinear" or "bicubic"; the latter overshoots, so that float values need a clamp afterwards.

    Returns:
        (B, C, height, width); differentiable in the images.
    """
    wanted = (size, size) if isinstance(size, int) else size
    if image.shape[-2:] == wanted:
        return image
    part = cut_faces(image, wanted)
    return part if part.shape[-2:] == wanted else F.interpolate(part, wanted, mode=mode, antialias=True)
