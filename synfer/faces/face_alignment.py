"""Where a face lies in its picture: by five points brought onto a template, whatever its size, place and tilt.

A similarity (turn, one scale, shift) is fitted by least squares (Umeyama 1991; in two dimensions one complex number and
a shift), so that nothing is squashed and nothing mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

POINTS = ("the eye on the left", "the eye on the right", "nose", "the mouth's left corner", "the mouth's right corner")
"""The five points in their order, as seen in the picture: the person's right eye comes first."""

TEMPLATES: dict[str, tuple[tuple[float, float], ...]] = {
    "arcface": (
        (0.34191607, 0.46157411),
        (0.65653392, 0.45983393),
        (0.50022500, 0.64050536),
        (0.37097589, 0.82469196),
        (0.63151696, 0.82325089),
    ),
}
"""Name → the five points as shares of the side. "arcface": Deng and others 2019 (38.2946, 51.6963, … of 112)."""

POINTS_IN_BOX = ((0.305, 0.385), (0.695, 0.385), (0.50, 0.57), (0.36, 0.77), (0.64, 0.77))
"""Where the five points usually lie in the box of a face, as shares of its sides.

Eyes as the cascade of :mod:`synfer.faces.haar_detector` has them (median of 228 faces of FER2013); boxes of data sets
are of other habits, which ``margin`` can make up for.
"""

_FINEST = 16
"""Input pixels of one output pixel, each way, beyond which a picture is not looked at more closely."""


def template_points(template: str | Sequence[float], margin: float) -> np.ndarray:
    """Returns the template's five points as shares of the side, float64 (5, 2).

    Args:
        template: a name in :data:`TEMPLATES`, or ten numbers, x and y of each point as shares of the side.
        margin: how much more is seen on each side, as a share of the template; below 0 less.

    Raises:
        ValueError: not known, not ten finite numbers, points that all coincide, or a margin of −0.3 or less.
    """
    if isinstance(template, str):
        if template not in TEMPLATES:
            raise ValueError(f"found the template '{template}', expected {', '.join(TEMPLATES)} or ten numbers")
        points = np.array(TEMPLATES[template])
    else:
        if len(template) != 10:
            raise ValueError(f"found {len(template)} numbers, expected x and y of {', '.join(POINTS)}")
        points = np.array(template, dtype=np.float64).reshape(5, 2)
    if not np.isfinite(points).all() or np.ptp(points, axis=0).max() <= 0:
        raise ValueError("found no five points that differ, expected ten numbers of about 0 to 1")
    if not -0.3 < margin <= 3:
        raise ValueError(f"found the margin {margin}, expected a number above -0.3, at most 3")
    return (points + margin) / (1 + 2 * margin)


def points_of_box(box: tuple[float, float, float, float]) -> np.ndarray:
    """Returns five points, float64 (5, 2), that stand for a face of which only the box is known.

    Args:
        box: left, top, right and bottom in pixels.
    """
    left, top, right, bottom = box
    return np.array([left, top]) + np.array(POINTS_IN_BOX) * np.array([right - left, bottom - top])


def five_of_68(points: np.ndarray) -> np.ndarray:
    """Returns the five points of 68 in the order of Multi-PIE (of dlib, of the AAM of CK+), float64 (5, 2).

    Args:
        points: (68, 2): jaw 0 to 16, brows, nose with its tip at 30, eyes 36 to 41 and 42 to 47, mouth from 48 on with
            its corners at 48 and 54.
    """
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def similarity(points: np.ndarray, template: np.ndarray) -> np.ndarray | None:
    """Returns what maps the template's frame to the picture, float64 (2, 3); None where no face can lie like that.

    Args:
        points: of the face, (5, 2), in pixels from the picture's upper left edge.
        template: the same points as shares of the side, (5, 2).

    None comes of points that are not finite or coincide, of a face upside down (left and right confused, most often)
    and of points that lie far from any similar image of the template.
    """
    if not np.isfinite(points).all():
        return None
    there, here = points @ np.array([1, 1j]), template @ np.array([1, 1j])
    from_centre, to_centre = here - here.mean(), there - there.mean()
    size = np.sqrt((np.abs(to_centre) ** 2).mean())
    if size <= 1e-6:
        return None
    turn = (to_centre * from_centre.conj()).sum() / (np.abs(from_centre) ** 2).sum()
    missed = np.sqrt((np.abs(turn * from_centre - to_centre) ** 2).mean())
    if turn.real <= 0 or missed > 0.6 * size:
        return None
    shift = there.mean() - turn * here.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def aligned(picture: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Returns a face on the template, uint8 (side, side) or (side, side, 3); what lies outside the picture is black.

    Args:
        picture: uint8 (H, W) or (H, W, 3).
        matrix: of :func:`similarity`.
        side: in pixels.
    """
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0])) / side  # input pixels of one output pixel
    finer = min(_FINEST, max(1, int(np.ceil(scale))))  # bilinear sampling alone would skip pixels
    step = 1 / (side * finer)
    (a, b, c), (d, e, f) = matrix
    warped = Image.fromarray(picture).transform(
        (side * finer, side * finer),
        Image.Transform.AFFINE,
        (a * step, b * step, c, d * step, e * step, f),
        Image.Resampling.BILINEAR,
    )
    return np.array(warped if finer == 1 else warped.reduce(finer))
