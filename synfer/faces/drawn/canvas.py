"""The canvas of a drawn face: windows of pixels, anti-aliased shapes from signed distances, and colours."""

from __future__ import annotations

import numpy as np


def pixelwise(values: np.ndarray | float) -> np.ndarray:
    """One value per face, (n,), ready to meet (n, h, w)."""
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


def colour_of_hue(hue: np.ndarray, saturation: np.ndarray | float, value: np.ndarray | float) -> np.ndarray:
    """RGB (n, 3) on a cosine colour wheel; smooth, hence without the sixfold case distinction of HSV."""
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[:, None] + np.arange(3, dtype=np.float32) / 3))
    saturation, value = (np.asarray(x, dtype=np.float32).reshape(-1, 1) for x in (saturation, value))
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)


def colour_between(palette: tuple[tuple[float, float, float], ...], position: np.ndarray) -> np.ndarray:
    """RGB (n, 3) at a position in [0, 1] along a palette, linear between neighbours."""
    colours = np.array(palette, dtype=np.float32)
    x = position * (len(palette) - 1)
    low = np.minimum(x.astype(np.int64), len(palette) - 2)
    return colours[low] + (x - low)[:, None] * (colours[low + 1] - colours[low])


class Window:
    """A rectangle of pixels that holds one part of every face of a chunk.

    Args:
        planes: red, green and blue of the pixels, (n, h, w) each; painted on in place.
        u: face coordinates of the pixels, to the right, (n, h, w).
        v: the same, downwards.
        per_pixel: pixels per unit of the face, (n, 1, 1).
    """

    def __init__(self, planes: list[np.ndarray], u: np.ndarray, v: np.ndarray, per_pixel: np.ndarray) -> None:
        self.planes, self.u, self.v, self._per_pixel = planes, u, v, per_pixel

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """Share of each pixel that lies inside a shape, from its signed distance (negative inside) in face units."""
        alpha = distance * -self._per_pixel
        alpha += 0.5
        return np.clip(alpha, 0.0, 1.0, out=alpha)

    def stroke(
        self, along: np.ndarray, across: np.ndarray, half_length: np.ndarray | float, half_width: np.ndarray | float
    ) -> np.ndarray:
        """Coverage of a line that thins out to its ends.

        Args:
            along: coordinate along the line, 0 at its middle, (n, h, w).
            across: signed distance from the line, (n, h, w).
            half_length: (n,) or one number.
            half_width: the same.
        """
        position = along / pixelwise(half_length)
        position *= position
        width = pixelwise(half_width) * (1 - position)
        alpha = np.minimum((width - np.abs(across)) * self._per_pixel + 0.5, 2 * width * self._per_pixel)
        return np.clip(alpha, 0.0, 1.0, out=alpha)

    def paint(
        self, alpha: np.ndarray, colour: np.ndarray | list[np.ndarray], opacity: np.ndarray | float | None = None
    ) -> None:
        """Lays a colour over the picture.

        Args:
            alpha: coverage in [0, 1], (n, h, w).
            colour: (n, 3), or three planes (n, h, w).
            opacity: (n,) or one number in [0, 1].
        """
        if opacity is not None:
            alpha = alpha * np.clip(pixelwise(opacity), 0.0, 1.0)
        for channel, plane in enumerate(self.planes):
            over = pixelwise(colour[:, channel]) if isinstance(colour, np.ndarray) else colour[channel]
            change = over - plane
            change *= alpha
            plane += change

    def tint(self, alpha: np.ndarray, factors: tuple[float, float, float], strength: np.ndarray | float = 1.0) -> None:
        """Multiplies the picture by ``factors`` where ``alpha * strength`` is 1 and leaves it alone where that is 0."""
        alpha = alpha * pixelwise(strength)
        for factor, plane in zip(factors, self.planes, strict=True):
            plane *= 1 + alpha * (factor - 1)
