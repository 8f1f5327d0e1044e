"""Faces drawn from action units: an embedded data set with exact labels, in colour, at any size.

A face is a stack of anti-aliased shapes given by signed distances. What an action unit moves follows FACS (Ekman and
Friesen); who the person is comes from a row of uniform numbers, one per name in :data:`IDENTITY_TRAITS`. Everything is
elementwise over a chunk of faces, so that a face does not depend on what it is drawn together with.

Coordinates: a face is drawn in its own frame, u to the right and v downwards, about −1…1, the origin between the eyes
and the nose. The side named R in an action unit (``AUR12``) is the person's right and lies on the left of the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from synfer.faces.expressions import ACTION_UNITS, action_unit_indices
from synfer.foundation.counter_based_random import keyed_uniform

IDENTITY_TRAITS = (
    *("scale", "shift_x", "shift_y", "roll", "yaw", "pitch"),
    *("light_x", "light_y", "exposure", "contrast", "warmth", "blur", "noise", "noise_x", "noise_y"),
    *("background_hue", "background_saturation", "background_value", "background_step", "background_angle"),
    *("skin_tone", "skin_blush", "clothes_hue", "clothes_value", "neck_width"),
    *("hair_tone", "hair_shade", "hair_volume", "hair_length", "hairline", "hair_parting", "hair_curve", "bald"),
    *("head_width", "head_top", "chin", "jaw_taper", "head_square", "ear_size"),
    *("eye_distance", "eye_height", "eye_width", "eye_opening", "eye_slant", "eye_hue", "eye_shade", "iris_size"),
    *("gaze_x", "gaze_y", "lid_fold", "lashes"),
    *("brow_height", "brow_slope", "brow_arch", "brow_thickness", "brow_length", "brow_tone"),
    *("nose_length", "nose_width", "nose_tip", "nose_bridge"),
    *("mouth_height", "mouth_width", "mouth_rest", "mouth_skew", "lip_upper", "lip_lower", "lip_redness", "lip_gap"),
    *("fold_depth", "eye_bags", "beard", "beard_density", "moustache", "glasses", "glasses_size", "asymmetry"),
)
"""What tells one person and one picture from another; each is a uniform number in [0, 1)."""

NUM_IDENTITY_TRAITS = len(IDENTITY_TRAITS)
"""Columns of the ``identity`` argument of :func:`draw_faces`."""

SMALLEST_SIZE, LARGEST_SIZE = 32, 256
"""Edge lengths in pixels between which the proportions of lines and shapes were tuned."""

LARGEST_ZOOM = 2.0
"""Closest crop: eyes to mouth."""

_CHUNK_PIXELS = 24 * 64 * 64  # faces drawn at once: few enough that the planes stay in the processor's cache
_TRAIT_COLUMN = {name: column for column, name in enumerate(IDENTITY_TRAITS)}
_SKIN_TONES = ((0.98, 0.84, 0.74), (0.93, 0.73, 0.58), (0.84, 0.62, 0.46), (0.68, 0.47, 0.33), (0.50, 0.34, 0.24))
_HAIR_TONES = (
    *((0.07, 0.06, 0.06), (0.16, 0.10, 0.07), (0.33, 0.20, 0.11), (0.55, 0.36, 0.18), (0.82, 0.66, 0.36)),
    *((0.50, 0.18, 0.08), (0.62, 0.61, 0.60)),
)
_PICTURE_SIDES = ((0, -1.0), (1, 1.0))  # (column of a two-sided value, direction of the outer corner)


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
        face = _Face(action_units[rows].astype(np.float32), identity[rows].astype(np.float32), size, zoom)
        for part in _PARTS:
            part(face)
        face.develop(images[rows])
    return images


def _pixelwise(values: np.ndarray | float) -> np.ndarray:
    """One value per face, (n,), ready to meet (n, h, w)."""
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


def _colour_of_hue(hue: np.ndarray, saturation: np.ndarray | float, value: np.ndarray | float) -> np.ndarray:
    """RGB (n, 3) on a cosine colour wheel; smooth, hence without the sixfold case distinction of HSV."""
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[:, None] + np.arange(3, dtype=np.float32) / 3))
    saturation, value = (np.asarray(x, dtype=np.float32).reshape(-1, 1) for x in (saturation, value))
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)


def _between(palette: tuple[tuple[float, float, float], ...], position: np.ndarray) -> np.ndarray:
    """RGB (n, 3) at a position in [0, 1] along a palette, linear between neighbours."""
    colours = np.array(palette, dtype=np.float32)
    x = position * (len(palette) - 1)
    low = np.minimum(x.astype(np.int64), len(palette) - 2)
    return colours[low] + (x - low)[:, None] * (colours[low + 1] - colours[low])


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    """One tile of zero-mean film grain, (384, 384), unit variance: each face gets its own window of it."""
    edge = LARGEST_SIZE + 128
    uniform = keyed_uniform(np.arange(edge), 3 * edge, 2024).reshape(edge, edge, 3)
    return ((uniform.sum(axis=2) - 1.5) * 2.0).astype(np.float32)


class _Window:
    """A rectangle of pixels that holds one part of every face of the chunk.

    Attributes:
        u, v: face coordinates of the pixels, (n, h, w).
    """

    def __init__(self, face: _Face, rows: slice, columns: slice) -> None:
        self.planes = [plane[:, rows, columns] for plane in face.planes]
        self.u, self.v = face.u[:, rows, columns], face.v[:, rows, columns]
        self._pixel, self._per_pixel = face.pixel, face.per_pixel

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
        position = along / _pixelwise(half_length)
        position *= position
        width = _pixelwise(half_width) * (1 - position)
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
            alpha = alpha * np.clip(_pixelwise(opacity), 0.0, 1.0)
        for channel, plane in enumerate(self.planes):
            over = _pixelwise(colour[:, channel]) if isinstance(colour, np.ndarray) else colour[channel]
            change = over - plane
            change *= alpha
            plane += change

    def tint(self, alpha: np.ndarray, factors: tuple[float, float, float], strength: np.ndarray | float = 1.0) -> None:
        """Multiplies the picture by ``factors`` where ``alpha * strength`` is 1 and leaves it alone where that is 0."""
        alpha = alpha * _pixelwise(strength)
        for factor, plane in zip(factors, self.planes, strict=True):
            plane *= 1 + alpha * (factor - 1)


class _Face:
    """A chunk of n faces being drawn: measures that several parts share, and the picture so far."""

    def __init__(self, action_units: np.ndarray, identity: np.ndarray, size: int, zoom: float) -> None:
        self._action_units, self._identity, self._size, self._zoom = action_units, identity, size, zoom
        n = len(action_units)
        self.planes = np.empty((3, n, size, size), dtype=np.float32)
        # Set when the head is drawn: signed distance from its outline, and how much light falls on it; (n, size, size).
        self.head_distance: np.ndarray = np.empty(0)
        self.shade: np.ndarray = np.empty(0)
        self._place()
        self._proportion()

    # What the rows say ----------------------------------------------------------------------------------------------

    def au(self, name: str) -> np.ndarray:
        """Intensity of an action unit on both sides at once, (n,)."""
        return self._action_units[:, action_unit_indices([name])[0]]

    def au_sides(self, number: int) -> np.ndarray:
        """Intensity on each side of the picture, (n, 2): left (the person's right), then right."""
        both, right, left = self.au(f"AU{number}"), self.au(f"AUR{number}"), self.au(f"AUL{number}")
        return np.stack([np.maximum(both, right), np.maximum(both, left)], axis=1)

    def trait(self, name: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """A trait of identity mapped to low…high, (n,)."""
        return low + (high - low) * self._identity[:, _TRAIT_COLUMN[name]]

    def has(self, name: str, share: float) -> np.ndarray:
        """Whether a person is among the ``share`` of people with this trait: 0 or 1, (n,)."""
        return (self._identity[:, _TRAIT_COLUMN[name]] < share).astype(np.float32)

    # Where things are -----------------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Sets the pose and the face coordinates of every pixel."""
        size = self._size
        self.scale = self._zoom * self.trait("scale", 0.98, 1.20)
        self.pixel = _pixelwise(2 / size / self.scale)
        self.per_pixel = 1 / self.pixel
        angle = self.trait("roll", -0.12, 0.12)
        self._cos, self._sin = np.cos(angle), np.sin(angle)
        self._x0, self._y0 = self.trait("shift_x", -0.06, 0.06), self.trait("shift_y", -0.04, 0.06)
        self._y0 = self._y0 - 0.25 * (self._zoom - 1)  # closer, the middle is between brows and chin
        self.axis = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)
        x = self.axis[None, None, :] - _pixelwise(self._x0)
        y = self.axis[None, :, None] - _pixelwise(self._y0)
        cos, sin = _pixelwise(self._cos / self.scale), _pixelwise(self._sin / self.scale)
        self.u, self.v = cos * x + sin * y, cos * y - sin * x

    def window(
        self,
        u: np.ndarray | float,
        v: np.ndarray | float,
        half_width: np.ndarray | float,
        half_height: np.ndarray | float,
    ) -> _Window:
        """The pixels of a box given in face coordinates; larger than some faces need, as all in a chunk share it."""
        x = self._x0 + self.scale * (self._cos * u - self._sin * v)
        y = self._y0 + self.scale * (self._sin * u + self._cos * v)
        cos, sin = np.abs(self._cos) * self.scale, np.abs(self._sin) * self.scale
        reach_x, reach_y = cos * half_width + sin * half_height, sin * half_width + cos * half_height
        return _Window(self, self._pixels(y - reach_y, y + reach_y), self._pixels(x - reach_x, x + reach_x))

    def _pixels(self, low: np.ndarray, high: np.ndarray) -> slice:
        first = int(np.floor((low.min() + 1) / 2 * self._size)) - 1
        last = int(np.ceil((high.max() + 1) / 2 * self._size)) + 1
        first = min(max(first, 0), self._size - 1)
        return slice(first, max(min(last, self._size), first + 1))

    def everything(self) -> _Window:
        return _Window(self, slice(None), slice(None))

    def _proportion(self) -> None:
        """Sets the measures and colours that more than one part needs."""
        self.jaw = np.clip(0.55 * self.au("AU26") + 0.95 * self.au("AU27"), 0, 1.1)
        self.yaw, self.pitch = self.trait("yaw", -0.08, 0.08), self.trait("pitch", -0.05, 0.05)
        self.head_width = self.trait("head_width", 0.55, 0.67)
        self.head_top = self.trait("head_top", 0.74, 0.86)
        self.chin = self.trait("chin", 0.74, 0.86) + 0.10 * self.jaw - 0.02 * self.au("AU17")
        self.eye_u = self.trait("eye_distance", 0.235, 0.30)
        self.eye_v = self.trait("eye_height", -0.13, -0.05) + self.pitch
        self.eye_width = self.trait("eye_width", 0.115, 0.155)
        self.nose_u = 1.5 * self.yaw
        self.nose_v = self.trait("nose_length", 0.17, 0.26) + 1.4 * self.pitch
        self.mouth_u = 1.1 * self.yaw
        self.mouth_v = self.nose_v + self.trait("mouth_height", 0.21, 0.27)
        self.skin = _between(_SKIN_TONES, self.trait("skin_tone"))
        self.line = self.skin * np.array([0.48, 0.36, 0.33], dtype=np.float32)  # creases: darker and redder than skin
        self.hair = _between(_HAIR_TONES, self.trait("hair_tone")) * self.trait("hair_shade", 0.7, 1.2)[:, None]
        self.has_hair = 1 - self.has("bald", 0.07)
        # Nobody's face is symmetric at rest or in motion: one side acts a little less.
        asymmetry = self.trait("asymmetry", -0.22, 0.22)
        self.side_gain = np.stack([1 - np.maximum(asymmetry, 0), 1 + np.minimum(asymmetry, 0)], axis=1)

    def develop(self, images: np.ndarray) -> None:
        """Turns the picture into bytes: lighting, blur, grain; writes uint8 (n, size, size, 3)."""
        n, size, planes = len(self.scale), self._size, self.planes
        contrast, exposure = self.trait("contrast", 0.85, 1.2), self.trait("exposure", 0.82, 1.12)
        warmth = self.trait("warmth", -0.07, 0.07)
        # Half of all pictures are sharp. The reach of the blur grows with the size, so that the detail lost is alike.
        blur = np.clip(self.trait("blur", -1.0, 1.0), 0, None) * 0.35
        amplitude = self.trait("noise", -0.03, 0.03)
        gain = _pixelwise(contrast * exposure)
        offset = _pixelwise(0.5 * exposure * (1 - contrast))
        x = (self.trait("noise_x") * 128).astype(np.int64)
        y = (self.trait("noise_y") * 128).astype(np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(_grain(), (size, size))
        grain = windows[y, x] * _pixelwise(np.clip(amplitude, 0, None))
        step = max(1, size // 64)
        for channel, sign in enumerate((1.0, 0.0, -1.0)):
            plane = planes[channel]
            for axis in (1, 2):
                plane = _soften(plane, axis, step, _pixelwise(blur))
            plane *= gain * (1 + sign * _pixelwise(warmth))
            plane += offset
            plane += grain
            np.clip(plane, 0.0, 1.0, out=plane)
            plane *= 255
            plane += 0.5
            images[..., channel] = plane.reshape(n, size, size)


def _soften(plane: np.ndarray, axis: int, step: int, weight: np.ndarray) -> np.ndarray:
    """Mixes each pixel with its two neighbours ``step`` away along an axis; the border repeats itself."""
    half = 0.5 * weight
    mixed: np.ndarray = plane * (1 - weight)
    low, high = [slice(None)] * 3, [slice(None)] * 3
    low[axis], high[axis] = slice(None, -step), slice(step, None)
    part = plane * half
    mixed[tuple(high)] += part[tuple(low)]
    mixed[tuple(low)] += part[tuple(high)]
    for edge in (slice(None, step), slice(-step, None)):
        border = [slice(None)] * 3
        border[axis] = edge
        mixed[tuple(border)] += part[tuple(border)]
    return mixed


# Parts, from the back to the front ------------------------------------------------------------------------------------


def _background(face: _Face) -> None:
    hue, value = face.trait("background_hue"), face.trait("background_value", 0.2, 0.95)
    colour = _colour_of_hue(hue, face.trait("background_saturation", 0, 0.45), value)
    step, angle = face.trait("background_step", -0.3, 0.3), face.trait("background_angle", 0, 2 * np.pi)
    across, down = _pixelwise(step * np.cos(angle)), _pixelwise(step * np.sin(angle))
    ramp = 1 + across * face.axis[None, None, :] + down * face.axis[None, :, None]
    for channel, plane in enumerate(face.planes):
        np.multiply(ramp, _pixelwise(colour[:, channel]), out=plane)


def _hair_behind(face: _Face) -> None:
    window = face.everything()
    volume = face.trait("hair_volume", 0.03, 0.15)
    width, top = face.head_width + volume, face.head_top + volume
    x, y = window.u / _pixelwise(width), (window.v + 0.10) / _pixelwise(top)
    cap = (np.sqrt(x * x + y * y) - 1) * 0.7
    length = face.trait("hair_length", -0.6, 1.3)  # below 0.1: nothing hangs over the ears
    # Long hair widens a little downwards and ends in a curve.
    hanging = np.maximum(np.abs(window.u) - _pixelwise(width) - 0.06 * window.v, -0.1 - window.v)
    hanging = np.maximum(hanging, window.v + 0.25 * window.u * window.u - _pixelwise(length))
    window.paint(window.cover(np.minimum(cap, hanging)), face.hair * 0.82, face.has_hair)


def _body(face: _Face) -> None:
    window = face.window(0.0, 1.3, 1.4, 1.0)
    neck = np.maximum(np.abs(window.u) - _pixelwise(face.trait("neck_width", 0.24, 0.38)), 0.35 - window.v)
    window.paint(window.cover(neck), face.skin * 0.74)
    clothes = _colour_of_hue(face.trait("clothes_hue"), 0.5, face.trait("clothes_value", 0.15, 0.9))
    x, y = window.u / 1.15, (window.v - 1.48) / 0.62
    window.paint(window.cover((np.sqrt(x * x + y * y) - 1) * 0.7), clothes)


def _ears(face: _Face) -> None:
    size = face.trait("ear_size", 0.7, 1.2)
    window = face.window(0.0, 0.04, 0.85, 0.25)
    x = (np.abs(window.u) - _pixelwise(face.head_width - 0.01)) / _pixelwise(0.09 * size)
    y = (window.v - 0.04) / _pixelwise(0.16 * size)
    radius = np.sqrt(x * x + y * y)
    window.paint(window.cover((radius - 1) * 0.1), face.skin * 0.88)
    window.paint(window.cover((radius - 0.5) * 0.1), face.line, 0.35)


def _head(face: _Face) -> None:
    window = face.everything()
    u, v = window.u, window.v
    y = np.minimum(v, 0) / _pixelwise(face.head_top) + np.maximum(v, 0) / _pixelwise(face.chin)
    taper = 1 - _pixelwise(face.trait("jaw_taper", 0.0, 0.22)) * np.maximum(y, 0)
    x = u / (_pixelwise(face.head_width) * taper)
    x, y = x * x, y * y
    corner = np.minimum(x, 1) * np.minimum(y, 1)  # bounded, or the squarish oval would close again far outside
    radius = np.sqrt(x + y - _pixelwise(face.trait("head_square", 0.0, 0.55)) * corner)
    face.head_distance = (radius - 1) * 0.62
    shade = 1.06 - 0.20 * radius * radius
    shade += _pixelwise(face.trait("light_x", -0.28, 0.28)) * u
    shade -= _pixelwise(face.trait("light_y", -0.06, 0.20)) * v
    face.shade = shade
    skin = [shade * _pixelwise(face.skin[:, channel]) for channel in range(3)]
    window.paint(window.cover(face.head_distance), skin)


def _cheeks(face: _Face) -> None:
    raised = face.au_sides(6) * face.side_gain
    pulled = np.maximum(face.au_sides(12), face.au("AU13")[:, None])
    blush = face.trait("skin_blush", 0.0, 0.5)
    for side, sign in _PICTURE_SIDES:
        lift = np.maximum(raised[:, side], 0.5 * pulled[:, side])
        u, v = sign * 0.33 + 0.8 * face.yaw, 0.20 + face.pitch - 0.06 * raised[:, side]
        window = face.window(u, v, 0.22, 0.20)
        x, y = (window.u - _pixelwise(u)) / 0.21, (window.v - _pixelwise(v)) / 0.17
        ball = np.maximum(1 - x * x - y * y, 0)
        window.tint(ball, (1.03, 0.80, 0.78), blush + 0.55 * lift)
        # The raised cheek catches light above and throws a crease below.
        x, y = (window.u - _pixelwise(u)), (window.v - _pixelwise(v - 0.03))
        highlight = np.maximum(1 - (x * x + y * y) / 0.0081, 0)
        window.tint(highlight, (1.16, 1.16, 1.16), lift)
        crease = y - 0.13 + 1.6 * x * x
        window.paint(window.stroke(x, crease, 0.15, 0.012), face.line, 0.45 * raised[:, side])


def _beard(face: _Face) -> None:
    has = face.has("beard", 0.10)
    if not has.any():
        return
    full = face.everything()
    edge = 0.34 + _pixelwise(face.pitch) - 0.9 * full.u * full.u - full.v
    alpha = np.minimum(full.cover(face.head_distance), np.clip(0.5 - edge * 9, 0, 1))
    full.paint(alpha, face.hair, has * face.trait("beard_density", 0.25, 0.85))


def _hair_in_front(face: _Face) -> None:
    window = face.window(0.0, -0.15, 0.85, 0.85)
    volume = 0.4 * face.trait("hair_volume", 0.03, 0.15)
    x = window.u / _pixelwise(face.head_width + volume)
    y = (window.v + 0.05) / _pixelwise(face.head_top + volume)
    cap = (np.sqrt(x * x + y * y) - 1) * 0.7
    across = window.u - _pixelwise(face.trait("hair_parting", -0.35, 0.35))
    line = _pixelwise(face.trait("hairline", -0.68, -0.48)) + _pixelwise(face.trait("hair_curve", 0.1, 1.1)) * (
        across * across
    )
    alpha = window.cover(np.maximum(cap, window.v - line))
    strands = 1 + 0.10 * np.sin(26 * x + 5 * y)
    colour = [strands * _pixelwise(face.hair[:, channel]) for channel in range(3)]
    window.paint(alpha, colour, face.has_hair)


def _forehead(face: _Face) -> None:
    raised = 0.5 * (face.au_sides(1) + face.au_sides(2)).mean(axis=1)
    inner = face.au_sides(1).mean(axis=1)
    v = face.eye_v - 0.36
    window = face.window(face.yaw, v, 0.36, 0.12)
    x, y = window.u - _pixelwise(face.yaw), window.v - _pixelwise(v)
    for height in (-0.055, 0.02):
        bend = y - height + 0.25 * x * x
        window.paint(
            window.stroke(x, bend, 0.15 + 0.17 * raised, 0.011), face.line, 0.55 * np.maximum(raised, inner * 0.8)
        )


def _eyes(face: _Face) -> None:
    upper_raise, tight = face.au("AU5"), face.au("AU7")
    cheek = face.au_sides(6) * face.side_gain
    brow_down, inner_up = face.au_sides(4), face.au_sides(1)
    squeeze = 0.35 * face.au("AU9")
    rest = face.trait("eye_opening", 0.056, 0.088)
    iris_colour = _colour_of_hue(face.trait("eye_hue", 0.05, 0.62), 0.55, face.trait("eye_shade", 0.12, 0.6))
    white = np.repeat(np.array([[0.95, 0.94, 0.92]], dtype=np.float32), len(rest), axis=0)
    lash = np.minimum(face.hair * 0.5, face.line * 0.6)
    ew = face.eye_width
    for side, sign in _PICTURE_SIDES:
        u = sign * face.eye_u + face.yaw
        window = face.window(u, face.eye_v - 0.02, ew + 0.10, 0.24)
        x = (window.u - _pixelwise(u)) * sign  # outwards
        y = window.v - _pixelwise(face.eye_v) + _pixelwise(face.trait("eye_slant", -0.10, 0.22)) * x
        p = x / _pixelwise(ew)
        bow = 1 - p * p
        opening = np.clip(1 + 0.80 * upper_raise - 0.42 * tight - 0.18 * cheek[:, side] - squeeze, 0.18, 2)
        worry = np.minimum(inner_up[:, side], 1.0) * (0.35 + 0.65 * brow_down[:, side])
        above = rest * opening
        below = rest * (0.62 + 0.15 * upper_raise - 0.62 * cheek[:, side] - 0.42 * tight - squeeze)
        # Raised inner brows pull the inner half of the upper lid up and let its outer half hang.
        upper = -_pixelwise(above) * bow * (1 - _pixelwise(0.45 * worry) * p)
        lower = _pixelwise(below) * bow
        # socket: a soft shade above the lid, deeper under a lowered brow
        socket = np.maximum(1 - (p * p) / 1.8 - (y + 0.10) ** 2 * 60, 0)
        window.tint(socket, (0.80, 0.72, 0.72), 0.35 + 0.5 * brow_down[:, side])
        inside = np.maximum.reduce([upper - y, y - lower, (np.abs(p) - 1) * 0.1])
        alpha = window.cover(inside)
        window.paint(alpha, white)
        gaze_x = x - _pixelwise(sign * face.trait("gaze_x", -0.035, 0.035))
        gaze_y = y - _pixelwise(face.trait("gaze_y", -0.015, 0.02))
        distance = np.sqrt(gaze_x * gaze_x + gaze_y * gaze_y)
        radius = _pixelwise(face.trait("iris_size", 0.056, 0.072))
        window.paint(np.minimum(alpha, window.cover(distance - radius)), iris_colour)
        window.paint(np.minimum(alpha, window.cover(distance - 0.45 * radius)), lash * 0.3)
        glint = (gaze_x - sign * 0.02) ** 2 + (gaze_y + 0.025) ** 2
        window.paint(np.minimum(alpha, np.maximum(1 - glint / 0.0006, 0)), white)
        thickness = face.trait("lashes", 0.012, 0.024)
        window.paint(window.stroke(x, y - upper, ew * 1.25, thickness), lash)
        window.paint(
            window.stroke(x, y - lower, ew * 1.1, 0.009), face.line, 0.45 + 0.4 * np.maximum(tight, cheek[:, side])
        )
        fold = y - 1.15 * upper + _pixelwise(0.035 - 0.012 * upper_raise)
        window.paint(window.stroke(x, fold, ew, 0.009), face.line, face.trait("lid_fold", 0.1, 0.6) * (1 - 0.4 * tight))
        # lower-lid pouch: people have bags, cheeks and tight lids make them
        bags = np.maximum(face.trait("eye_bags", -0.3, 0.5), 0.7 * np.maximum(cheek[:, side], 0.8 * tight))
        pouch = y - lower - 0.045
        window.paint(window.stroke(x, pouch, ew * 0.9, 0.011), face.line, bags)
        # crow's feet
        for spread in (-0.45, 0.25):
            feet = y - spread * (x - _pixelwise(ew)) - 0.01
            window.paint(window.stroke(x - _pixelwise(ew + 0.055), feet, 0.05, 0.009), face.line, 0.6 * cheek[:, side])


def _brows(face: _Face) -> None:
    inner_up = face.au_sides(1) * face.side_gain
    outer_up = face.au_sides(2) * face.side_gain
    down = face.au_sides(4) * face.side_gain
    length = face.trait("brow_length", 0.135, 0.18)
    thickness = face.trait("brow_thickness", 0.016, 0.042)
    tone = face.trait("brow_tone", 0.55, 0.95)[:, None]
    colour = np.minimum(face.hair * tone, face.skin * 0.6)
    height = face.eye_v - face.trait("brow_height", 0.155, 0.225)
    slope, arch = face.trait("brow_slope", -0.02, 0.02), face.trait("brow_arch", 0.005, 0.05)
    wrinkled = face.au("AU9")
    for side, sign in _PICTURE_SIDES:
        a1, a2, a4 = inner_up[:, side], outer_up[:, side], down[:, side]
        # A lowered brow that the inner raiser pulls up stays up inside and slopes outwards: the brow of grief and fear.
        knit = a4 * (1 - 0.8 * a1)
        u = sign * (face.eye_u + 0.015 - 0.035 * a4) + face.yaw
        v = height + 0.035 * knit + 0.045 * wrinkled
        window = face.window(u, v, length + 0.03, 0.22)
        x = (window.u - _pixelwise(u)) * sign
        y = window.v - _pixelwise(v)
        p = x / _pixelwise(length)
        inner, outer = 0.5 - 0.5 * p, 0.5 + 0.5 * p
        curve = _pixelwise(slope) * p + _pixelwise(arch) * (p * p - 0.5)
        curve = curve + inner * _pixelwise(-0.125 * a1 + 0.105 * knit)
        curve = curve + outer * _pixelwise(-0.125 * a2 + 0.010 * knit + 0.035 * a1 * a4 * (1 - a2))
        window.paint(window.stroke(x, y - curve, length, thickness), colour, 0.92)
    # glabella: two upright furrows
    strength = down.mean(axis=1)
    window = face.window(face.yaw, face.eye_v - 0.13, 0.10, 0.16)
    x = np.abs(window.u - _pixelwise(face.yaw)) - 0.042
    y = window.v - _pixelwise(face.eye_v - 0.14)
    window.paint(window.stroke(y, x, 0.09, 0.012), face.line, 0.75 * strength)


def _nose(face: _Face) -> None:
    wrinkle, dilate, narrow = face.au("AU9"), face.au("AU38"), face.au("AU39")
    lift = 0.045 * wrinkle + 0.015 * face.au_sides(10).mean(axis=1)
    width = face.trait("nose_width", 0.085, 0.14) * (1 + 0.25 * dilate - 0.25 * narrow + 0.22 * wrinkle)
    tip = face.nose_v - lift
    top = face.eye_v + 0.02
    window = face.window(face.nose_u, 0.5 * (top + tip), 0.26, 0.32)
    u, v = window.u - _pixelwise(face.nose_u), window.v - _pixelwise(tip)
    along = (window.v - _pixelwise(top)) / _pixelwise(tip - top)  # 0 at the root, 1 at the tip
    # The bridge runs from between the eyes (less yaw) to the tip (more).
    bridge = u + _pixelwise(0.5 * face.yaw) * (1 - along)
    light = np.sign(face.trait("light_x", -1, 1)).astype(np.float32)
    body = np.clip(along * (1.15 - along) * 4, 0, 1) * np.maximum(1 - np.abs(bridge) * 9, 0)
    window.tint(body, (1.15, 1.13, 1.12), face.trait("nose_bridge", 0.2, 1.0))
    flank = bridge + _pixelwise(light * 0.055)
    window.paint(window.stroke(along - 0.45, flank, 0.5, 0.014), face.line, face.trait("nose_bridge", 0.1, 0.45))
    ball = np.maximum(1 - (u / 0.09) ** 2 - ((v + 0.035) / 0.07) ** 2, 0)
    window.tint(ball, (1.10, 1.00, 0.98), face.trait("nose_tip", 0.2, 1.0))
    w = _pixelwise(width)
    underline = v - 0.015 - 0.35 * w + (np.abs(u) / w) ** 2 * 0.35 * w
    window.paint(window.stroke(u, underline, width * 1.1, 0.012), face.line, 0.55)
    x, y = (np.abs(u) - 0.52 * w) / (0.33 * w), (v - 0.012) / (0.022 + 0.012 * _pixelwise(dilate))
    window.paint(window.cover((np.sqrt(x * x + y * y) - 1) * 0.03), face.line * 0.55)
    wing = np.abs(u) - w * 1.04 + 6 * (v + 0.015) ** 2
    window.paint(window.stroke(v + 0.015, wing, 0.06, 0.012), face.line, 0.4 + 0.5 * wrinkle)
    # nose wrinkler: creases across the root and along the flanks
    for offset in (0.02, 0.30):
        across = (along - offset) * _pixelwise(tip - top) + 0.30 * np.abs(bridge)
        window.paint(window.stroke(bridge, across, 0.085, 0.013), face.line, 0.85 * wrinkle)
    flanks = np.abs(bridge) - 0.075 - 0.05 * along
    window.paint(window.stroke(along - 0.45, flanks, 0.35, 0.013), face.line, 0.6 * wrinkle)


def _mouth(face: _Face) -> None:
    au = face.au
    gain = face.side_gain
    pull, dimple = face.au_sides(12) * gain, face.au_sides(14) * gain
    sharp, depress = au("AU13")[:, None] * gain, au("AU15")[:, None] * gain
    lift = face.au_sides(10).mean(axis=1) + 0.35 * au("AU9")
    funnel, pucker, tighten, press = au("AU22"), au("AU18"), au("AU23"), au("AU24")
    stretch, part, chin_up, lower_down = au("AU20"), au("AU25"), au("AU17"), au("AU16")

    # Geometry: half widths and heights of the two corners, the gap between the lips, the thickness of the lips.
    width = face.trait("mouth_width", 0.215, 0.285)[:, None]
    shared = 0.28 * stretch - 0.42 * pucker - 0.25 * funnel - 0.16 * tighten - 0.05 * press - 0.22 * face.jaw
    half_widths = width * np.clip(1 + shared[:, None] + 0.34 * pull + 0.10 * dimple, 0.45, 1.6)
    rest = face.trait("mouth_rest", -0.012, 0.018)[:, None]
    skew = face.trait("mouth_skew", -0.01, 0.01)[:, None] * np.array([[-1.0, 1.0]], dtype=np.float32)
    corners = rest + skew - 0.100 * pull - 0.085 * sharp - 0.025 * dimple + 0.085 * depress
    corners = corners + (0.045 * stretch)[:, None]
    closing = (1 - 0.8 * press) * (1 - 0.4 * tighten)
    laughing = part * np.maximum(pull.mean(axis=1), 0)
    gap = (0.034 * part + 0.17 * face.jaw + 0.035 * funnel + 0.06 * laughing) * closing
    gap = gap + np.clip(face.trait("lip_gap", -0.05, 0.014), 0, None)
    gap_up = 0.25 * gap + 0.028 * lift
    gap_down = 0.75 * gap + 0.040 * lower_down * closing + 0.02 * stretch * part
    thin = (1 - 0.55 * tighten) * (1 - 0.7 * press) * (1 - 0.3 * stretch)
    plump = 1 + 0.45 * pucker + 0.6 * funnel
    upper_lip = face.trait("lip_upper", 0.030, 0.058) * thin * plump * (1 - 0.35 * pull.mean(axis=1))
    lower_lip = face.trait("lip_lower", 0.042, 0.075) * thin * plump * (1 - 0.2 * pull.mean(axis=1) + 0.3 * chin_up)
    v = face.mouth_v - 0.035 * chin_up - 0.02 * lift

    window = face.window(face.mouth_u, v + 0.12, 0.50, 0.52)
    x, y = window.u - _pixelwise(face.mouth_u), window.v - _pixelwise(v)
    p = x / np.where(x < 0, _pixelwise(half_widths[:, 0]), _pixelwise(half_widths[:, 1]))
    square = p * p
    middle = 0.5 * (corners[:, 0] + corners[:, 1])
    lean = 0.5 * (corners[:, 1] - corners[:, 0])
    # The middle gives way against the corners: a smile sags, and a mouth turned down bulges.
    centre = square * (_pixelwise(middle) + _pixelwise(lean) * p) - _pixelwise(0.3 * middle) * (1 - square)
    centre = centre + _pixelwise(0.03 * chin_up) * square
    bow, flat_bow = 1 - square, 1 - square * square
    inner_up, inner_down = centre - _pixelwise(gap_up) * flat_bow, centre + _pixelwise(gap_down) * flat_bow
    outer_up = inner_up - _pixelwise(upper_lip) * bow * (0.78 + 1.0 * square)
    outer_down = inner_down + _pixelwise(lower_lip) * flat_bow

    # moustache lies under the lips
    hairy = face.has("moustache", 0.09)
    if hairy.any():
        moustache = np.maximum(np.abs(x) - 0.2, np.abs(y - outer_up + 0.035) - 0.035 * (1.2 - np.abs(x) * 3))
        window.paint(window.cover(moustache), face.hair, hairy * 0.9)

    redness = face.trait("lip_redness", 0.0, 1.0)[:, None]
    lips = face.skin * (1 - redness * np.array([0.10, 0.42, 0.38], dtype=np.float32)) * 0.86
    beyond = (np.abs(p) - 1) * 0.2  # outside the corners, where the curves above mean nothing
    window.paint(window.cover(np.maximum.reduce([outer_up - y, y - outer_down, beyond])), lips)
    window.paint(window.cover(np.maximum.reduce([outer_up - y, y - inner_up, beyond])), lips * 0.80)
    inside = np.maximum.reduce([inner_up - y, y - inner_down, beyond])
    mouth_line = 0.006 + 0.006 * np.maximum(press, tighten)
    cavity = window.cover(inside - _pixelwise(mouth_line))
    n = len(v)
    window.paint(cavity, np.repeat(np.array([[0.26, 0.07, 0.08]], dtype=np.float32), n, axis=0))
    total = gap_up + gap_down
    teeth = np.repeat(np.array([[0.95, 0.93, 0.88]], dtype=np.float32), n, axis=0)
    shows = np.clip((total - 0.02) * 30, 0, 1)
    upper_teeth = np.minimum(0.055, 0.75 * total) * np.clip(0.5 + pull.mean(axis=1) + lift + 0.4 * stretch, 0, 1)
    within = np.minimum(cavity, window.cover(inside + 0.004))
    window.paint(np.minimum(within, window.cover(y - inner_up - _pixelwise(upper_teeth))), teeth, shows)
    lower_teeth = np.minimum(0.045, 0.5 * total) * np.clip(1.2 * lower_down + 0.8 * stretch, 0, 1)
    window.paint(np.minimum(within, window.cover(inner_down - _pixelwise(lower_teeth) - y)), teeth * 0.93, shows)
    tongue_out = au("AU19")
    tongue_tone = np.repeat(np.array([[0.80, 0.36, 0.38]], dtype=np.float32), n, axis=0)
    rise = _pixelwise(0.5 * face.jaw * gap_down)
    bed = np.minimum(within, window.cover(inner_down - rise + 2.5 * x * x - y))
    window.paint(bed, tongue_tone, 0.75 * np.clip(face.jaw * 1.5, 0, 1))
    tx, ty = x / 0.10, (y - _pixelwise(gap_down + 0.04)) / 0.10
    window.paint(window.cover((np.sqrt(tx * tx + ty * ty) - 1) * 0.1), tongue_tone, np.clip(2 * tongue_out, 0, 1))
    bite = np.maximum(np.abs(x) - 0.085, np.abs(y - inner_up - 0.03) - 0.026)
    window.paint(window.cover(bite), teeth, np.clip(1.5 * au("AU32"), 0, 1))

    # the shadow below the lower lip, and the chin boss that the chin raiser bunches up
    below = y - outer_down - 0.035
    window.paint(window.stroke(x, below, half_widths.mean(axis=1) * 0.75, 0.018), face.line, 0.25 + 0.3 * chin_up)
    boss = below - 0.055 - 2.2 * x * x + 0.02
    window.paint(window.stroke(x, boss, 0.13, 0.013), face.line, 0.75 * chin_up)

    # corners: each side has its own dimple and its own fold from the nose wing
    fold_rest = face.trait("fold_depth", -0.15, 0.30)
    upper = face.au_sides(10)
    for side, sign in _PICTURE_SIDES:
        # where the curve of the lips ends on this side
        end_u, end_v = half_widths[:, side], corners[:, side] + 0.03 * chin_up
        cx, cy = x * sign - _pixelwise(end_u + 0.022), y - _pixelwise(end_v)
        window.paint(
            window.stroke(cy, cx + 4 * cy * cy, 0.055, 0.013),
            face.line,
            0.12 + 0.8 * dimple[:, side] + 0.35 * np.maximum(pull, sharp)[:, side] + 0.25 * depress[:, side],
        )
        droop = cy - 0.8 * cx - 0.03
        window.paint(window.stroke(cx - 0.01, droop, 0.05, 0.012), face.line, 0.8 * depress[:, side])
        deep = np.maximum.reduce(
            [
                0.75 * pull[:, side],
                0.9 * au("AU11"),
                0.85 * upper[:, side],
                0.6 * au("AU9"),
                0.4 * dimple[:, side],
                np.clip(fold_rest, 0, None),
            ]
        )
        span = _pixelwise(face.mouth_v - face.nose_v + 0.04)
        t = (window.v - _pixelwise(face.nose_v - 0.03)) / span
        path = 0.125 + _pixelwise(end_u - 0.05) * (1.5 * t - 0.5 * t * t)
        fold = (window.u - _pixelwise(face.mouth_u)) * sign - path
        window.paint(window.stroke(t - 0.5, fold, 0.55, 0.013), face.line, deep)


def _glasses(face: _Face) -> None:
    has = face.has("glasses", 0.12)
    if not has.any():
        return
    window = face.window(face.yaw, face.eye_v, 0.70, 0.26)
    u, v = window.u - _pixelwise(face.yaw), window.v - _pixelwise(face.eye_v + 0.01)
    size = face.trait("glasses_size", 0.85, 1.15)
    x = (np.abs(u) - _pixelwise(face.eye_u)) / _pixelwise(0.20 * size)
    y = v / _pixelwise(0.155 * size)
    x, y = x * x, y * y
    rim = np.abs(np.sqrt(x + y - 0.45 * np.minimum(x, 1) * np.minimum(y, 1)) - 1) * 0.17 - 0.013
    bridge = np.maximum(np.abs(u) - _pixelwise(face.eye_u - 0.19 * size), np.abs(v + 0.03) - 0.012)
    frame = _colour_of_hue(face.trait("clothes_hue"), 0.6, face.trait("glasses_size", 0.05, 0.45))
    window.paint(window.cover(np.minimum(rim, bridge)), frame, has)


_PARTS: tuple[Callable[[_Face], None], ...] = (
    *(_background, _hair_behind, _body, _ears, _head, _cheeks, _beard, _hair_in_front, _forehead),
    *(_eyes, _brows, _nose, _mouth, _glasses),
)
