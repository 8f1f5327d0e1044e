"""Faces drawn from action units: an embedded data set with exact labels, in colour, at any size.

A face is a stack of anti-aliased shapes given by signed distances. What an action unit moves follows FACS (Ekman and
Friesen); who the person is comes from a row of uniform numbers, one per name in :data:`IDENTITY_TRAITS`. Everything is
elementwise over a chunk of faces, so that a face does not depend on what it is drawn together with.

Coordinates: a face is drawn in its own frame, u to the right and v downwards, about −1…1, the origin between the eyes
and the nose. The side named R in an action unit (``AUR12``) is the person's right and lies on the left of the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.drawn.face import LARGEST_SIZE, LARGEST_ZOOM, NUM_IDENTITY_TRAITS, SMALLEST_SIZE, Face
from synfer.faces.drawn.features import brows, eyes, glasses, mouth, nose
from synfer.faces.drawn.head import background, beard, body, cheeks, ears, forehead, hair_behind, hair_in_front, head

_CHUNK_PIXELS = 24 * 64 * 64  # faces drawn at once: few enough that the planes stay in the processor's cache

_PARTS: tuple[Callable[[Face], None], ...] = (
    *(background, hair_behind, body, ears, head, cheeks, beard, hair_in_front, forehead),
    *(eyes, brows, nose, mouth, glasses),
)


def draw_faces(action_units: np.ndarray, identity: np.ndarray, size: int, zoom: float = 1.0) -> np.ndarray:
    """Draws one face per row.

    Args:
        action_units: intensities in [0, 1], (n, 41), columns in the order of ``ACTION_UNITS``.
        identity: uniform numbers in [0, 1), (n, NUM_IDENTITY_TRAITS).
        size: edge length in pixels, 32…256.
        zoom: how much closer the picture is cropped, 1…2: 1 shows head and shoulders, 1.5 brows to chin.

    Returns:
        uint8 (n, size, size, 3), RGB. Row i is a function of row i of both arguments, of ``size`` and ``zoom`` alone.

    Raises:
        ValueError: an array of another shape, a value outside its range (NaN included), a size outside 32…256 or a zoom
            outside 1…2.
    """
    n = len(action_units)
    for name, array, columns in (
        ("action_units", action_units, len(ACTION_UNITS)),
        ("identity", identity, NUM_IDENTITY_TRAITS),
    ):
        if array.shape != (n, columns):
            raise ValueError(f"draw_faces: {name} has shape {array.shape}, expected ({n}, {columns})")
        wrong = np.flatnonzero(~((array >= 0) & (array <= 1)).all(axis=1))
        if len(wrong):
            raise ValueError(f"draw_faces: {name} of row {wrong[0]} lies outside [0, 1] (and of {len(wrong) - 1} more)")
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise ValueError(f"draw_faces: size is {size}, expected {SMALLEST_SIZE}…{LARGEST_SIZE} pixels")
    if not 1 <= zoom <= LARGEST_ZOOM:
        raise ValueError(f"draw_faces: zoom is {zoom}, expected 1…{LARGEST_ZOOM}")
    images = np.empty((n, size, size, 3), dtype=np.uint8)
    chunk = max(1, _CHUNK_PIXELS // size**2)
    for start in range(0, n, chunk):
        rows = slice(start, start + chunk)
        face = Face(action_units[rows].astype(np.float32), identity[rows].astype(np.float32), size, zoom)
        for part in _PARTS:
            part(face)
        face.develop(images[rows])
    return images
