"""A chunk of faces being drawn: who they are, where things are, what several parts share; light, blur and grain."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from synfer.faces.action_units import action_unit_indices
from synfer.faces.drawn.canvas import Window, colour_between, pixelwise
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
"""Columns of the ``identity`` argument of :func:`synfer.faces.drawn.draw.draw_faces`."""

SMALLEST_SIZE, LARGEST_SIZE = 32, 256
"""Edge lengths in pixels between which the proportions of lines and shapes were tuned."""

LARGEST_ZOOM = 2.0
"""Closest crop: eyes to mouth."""

PICTURE_SIDES = ((0, -1.0), (1, 1.0))
"""Column of a two-sided value, direction of the outer corner."""

_TRAIT_COLUMN = {name: column for column, name in enumerate(IDENTITY_TRAITS)}
_SKIN_TONES = ((0.98, 0.84, 0.74), (0.93, 0.73, 0.58), (0.84, 0.62, 0.46), (0.68, 0.47, 0.33), (0.50, 0.34, 0.24))
_HAIR_TONES = (
    *((0.07, 0.06, 0.06), (0.16, 0.10, 0.07), (0.33, 0.20, 0.11), (0.55, 0.36, 0.18), (0.82, 0.66, 0.36)),
    *((0.50, 0.18, 0.08), (0.62, 0.61, 0.60)),
)


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    """One tile of zero-mean film grain, (384, 384), unit variance: each face gets its own window of it."""
    edge = LARGEST_SIZE + 128
    uniform = keyed_uniform(np.arange(edge), 3 * edge, 2024).reshape(edge, edge, 3)
    return ((uniform.sum(axis=2) - 1.5) * 2.0).astype(np.float32)


class Face:
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
        self.per_pixel = 1 / pixelwise(2 / size / self.scale)
        angle = self.trait("roll", -0.12, 0.12)
        self._cos, self._sin = np.cos(angle), np.sin(angle)
        self._x0, self._y0 = self.trait("shift_x", -0.06, 0.06), self.trait("shift_y", -0.04, 0.06)
        self._y0 = self._y0 - 0.25 * (self._zoom - 1)  # closer, the middle is between brows and chin
        self.axis = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)
        x = self.axis[None, None, :] - pixelwise(self._x0)
        y = self.axis[None, :, None] - pixelwise(self._y0)
        cos, sin = pixelwise(self._cos / self.scale), pixelwise(self._sin / self.scale)
        self.u, self.v = cos * x + sin * y, cos * y - sin * x

    def window(
        self,
        u: np.ndarray | float,
        v: np.ndarray | float,
        half_width: np.ndarray | float,
        half_height: np.ndarray | float,
    ) -> Window:
        """The pixels of a box given in face coordinates; larger than some faces need, as all in a chunk share it."""
        x = self._x0 + self.scale * (self._cos * u - self._sin * v)
        y = self._y0 + self.scale * (self._sin * u + self._cos * v)
        cos, sin = np.abs(self._cos) * self.scale, np.abs(self._sin) * self.scale
        reach_x, reach_y = cos * half_width + sin * half_height, sin * half_width + cos * half_height
        return self._cut(self._pixels(y - reach_y, y + reach_y), self._pixels(x - reach_x, x + reach_x))

    def _pixels(self, low: np.ndarray, high: np.ndarray) -> slice:
        first = int(np.floor((low.min() + 1) / 2 * self._size)) - 1
        last = int(np.ceil((high.max() + 1) / 2 * self._size)) + 1
        first = min(max(first, 0), self._size - 1)
        return slice(first, max(min(last, self._size), first + 1))

    def everything(self) -> Window:
        """The whole picture."""
        return self._cut(slice(None), slice(None))

    def _cut(self, rows: slice, columns: slice) -> Window:
        planes = [plane[:, rows, columns] for plane in self.planes]
        return Window(planes, self.u[:, rows, columns], self.v[:, rows, columns], self.per_pixel)

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
        self.skin = colour_between(_SKIN_TONES, self.trait("skin_tone"))
        self.line = self.skin * np.array([0.48, 0.36, 0.33], dtype=np.float32)  # creases: darker and redder than skin
        self.hair = colour_between(_HAIR_TONES, self.trait("hair_tone")) * self.trait("hair_shade", 0.7, 1.2)[:, None]
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
        gain = pixelwise(contrast * exposure)
        offset = pixelwise(0.5 * exposure * (1 - contrast))
        x = (self.trait("noise_x") * 128).astype(np.int64)
        y = (self.trait("noise_y") * 128).astype(np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(_grain(), (size, size))
        grain = windows[y, x] * pixelwise(np.clip(amplitude, 0, None))
        step = max(1, size // 64)
        for channel, sign in enumerate((1.0, 0.0, -1.0)):
            plane = planes[channel]
            for axis in (1, 2):
                plane = _soften(plane, axis, step, pixelwise(blur))
            plane *= gain * (1 + sign * pixelwise(warmth))
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
