"""Everything around the features of a drawn face, from the back to the front: background, body, head, hair."""

from __future__ import annotations

import numpy as np

from synfer.faces.drawn.canvas import colour_of_hue, pixelwise
from synfer.faces.drawn.face import PICTURE_SIDES, Face


def background(face: Face) -> None:
    """Paints what is behind the person: a colour that changes across the picture."""
    hue, value = face.trait("background_hue"), face.trait("background_value", 0.2, 0.95)
    colour = colour_of_hue(hue, face.trait("background_saturation", 0, 0.45), value)
    step, angle = face.trait("background_step", -0.3, 0.3), face.trait("background_angle", 0, 2 * np.pi)
    across, down = pixelwise(step * np.cos(angle)), pixelwise(step * np.sin(angle))
    ramp = 1 + across * face.axis[None, None, :] + down * face.axis[None, :, None]
    for channel, plane in enumerate(face.planes):
        np.multiply(ramp, pixelwise(colour[:, channel]), out=plane)


def hair_behind(face: Face) -> None:
    """Draws the hair that frames the head and may hang over the ears."""
    window = face.everything()
    volume = face.trait("hair_volume", 0.03, 0.15)
    width, top = face.head_width + volume, face.head_top + volume
    x, y = window.u / pixelwise(width), (window.v + 0.10) / pixelwise(top)
    cap = (np.sqrt(x * x + y * y) - 1) * 0.7
    length = face.trait("hair_length", -0.6, 1.3)  # below 0.1: nothing hangs over the ears
    # Long hair widens a little downwards and ends in a curve.
    hanging = np.maximum(np.abs(window.u) - pixelwise(width) - 0.06 * window.v, -0.1 - window.v)
    hanging = np.maximum(hanging, window.v + 0.25 * window.u * window.u - pixelwise(length))
    window.paint(window.cover(np.minimum(cap, hanging)), face.hair * 0.82, face.has_hair)


def body(face: Face) -> None:
    """Draws neck and clothes."""
    window = face.window(0.0, 1.3, 1.4, 1.0)
    neck = np.maximum(np.abs(window.u) - pixelwise(face.trait("neck_width", 0.24, 0.38)), 0.35 - window.v)
    window.paint(window.cover(neck), face.skin * 0.74)
    clothes = colour_of_hue(face.trait("clothes_hue"), 0.5, face.trait("clothes_value", 0.15, 0.9))
    x, y = window.u / 1.15, (window.v - 1.48) / 0.62
    window.paint(window.cover((np.sqrt(x * x + y * y) - 1) * 0.7), clothes)


def ears(face: Face) -> None:
    """Draws both ears."""
    size = face.trait("ear_size", 0.7, 1.2)
    window = face.window(0.0, 0.04, 0.85, 0.25)
    x = (np.abs(window.u) - pixelwise(face.head_width - 0.01)) / pixelwise(0.09 * size)
    y = (window.v - 0.04) / pixelwise(0.16 * size)
    radius = np.sqrt(x * x + y * y)
    window.paint(window.cover((radius - 1) * 0.1), face.skin * 0.88)
    window.paint(window.cover((radius - 0.5) * 0.1), face.line, 0.35)


def head(face: Face) -> None:
    """Draws the skin of the head, and sets the face's outline and shading."""
    window = face.everything()
    u, v = window.u, window.v
    y = np.minimum(v, 0) / pixelwise(face.head_top) + np.maximum(v, 0) / pixelwise(face.chin)
    taper = 1 - pixelwise(face.trait("jaw_taper", 0.0, 0.22)) * np.maximum(y, 0)
    x = u / (pixelwise(face.head_width) * taper)
    x, y = x * x, y * y
    corner = np.minimum(x, 1) * np.minimum(y, 1)  # bounded, or the squarish oval would close again far outside
    radius = np.sqrt(x + y - pixelwise(face.trait("head_square", 0.0, 0.55)) * corner)
    face.head_distance = (radius - 1) * 0.62
    shade = 1.06 - 0.20 * radius * radius
    shade += pixelwise(face.trait("light_x", -0.28, 0.28)) * u
    shade -= pixelwise(face.trait("light_y", -0.06, 0.20)) * v
    face.shade = shade
    skin = [shade * pixelwise(face.skin[:, channel]) for channel in range(3)]
    window.paint(window.cover(face.head_distance), skin)


def cheeks(face: Face) -> None:
    """Draws blush, and the cheeks as AU6, AU12 and AU13 raise them."""
    raised = face.au_sides(6) * face.side_gain
    pulled = np.maximum(face.au_sides(12), face.au("AU13")[:, None])
    blush = face.trait("skin_blush", 0.0, 0.5)
    for side, sign in PICTURE_SIDES:
        lift = np.maximum(raised[:, side], 0.5 * pulled[:, side])
        u, v = sign * 0.33 + 0.8 * face.yaw, 0.20 + face.pitch - 0.06 * raised[:, side]
        window = face.window(u, v, 0.22, 0.20)
        x, y = (window.u - pixelwise(u)) / 0.21, (window.v - pixelwise(v)) / 0.17
        ball = np.maximum(1 - x * x - y * y, 0)
        window.tint(ball, (1.03, 0.80, 0.78), blush + 0.55 * lift)
        # The raised cheek catches light above and throws a crease below.
        x, y = (window.u - pixelwise(u)), (window.v - pixelwise(v - 0.03))
        highlight = np.maximum(1 - (x * x + y * y) / 0.0081, 0)
        window.tint(highlight, (1.16, 1.16, 1.16), lift)
        crease = y - 0.13 + 1.6 * x * x
        window.paint(window.stroke(x, crease, 0.15, 0.012), face.line, 0.45 * raised[:, side])


def beard(face: Face) -> None:
    """Draws a beard on some."""
    has = face.has("beard", 0.10)
    if not has.any():
        return
    full = face.everything()
    edge = 0.34 + pixelwise(face.pitch) - 0.9 * full.u * full.u - full.v
    alpha = np.minimum(full.cover(face.head_distance), np.clip(0.5 - edge * 9, 0, 1))
    full.paint(alpha, face.hair, has * face.trait("beard_density", 0.25, 0.85))


def hair_in_front(face: Face) -> None:
    """Draws the hair over the forehead."""
    window = face.window(0.0, -0.15, 0.85, 0.85)
    volume = 0.4 * face.trait("hair_volume", 0.03, 0.15)
    x = window.u / pixelwise(face.head_width + volume)
    y = (window.v + 0.05) / pixelwise(face.head_top + volume)
    cap = (np.sqrt(x * x + y * y) - 1) * 0.7
    across = window.u - pixelwise(face.trait("hair_parting", -0.35, 0.35))
    line = pixelwise(face.trait("hairline", -0.68, -0.48)) + pixelwise(face.trait("hair_curve", 0.1, 1.1)) * (
        across * across
    )
    alpha = window.cover(np.maximum(cap, window.v - line))
    strands = 1 + 0.10 * np.sin(26 * x + 5 * y)
    colour = [strands * pixelwise(face.hair[:, channel]) for channel in range(3)]
    window.paint(alpha, colour, face.has_hair)


def forehead(face: Face) -> None:
    """Draws the lines that raised brows (AU1, AU2) throw."""
    raised = 0.5 * (face.au_sides(1) + face.au_sides(2)).mean(axis=1)
    inner = face.au_sides(1).mean(axis=1)
    v = face.eye_v - 0.36
    window = face.window(face.yaw, v, 0.36, 0.12)
    x, y = window.u - pixelwise(face.yaw), window.v - pixelwise(v)
    for height in (-0.055, 0.02):
        bend = y - height + 0.25 * x * x
        window.paint(
            window.stroke(x, bend, 0.15 + 0.17 * raised, 0.011), face.line, 0.55 * np.maximum(raised, inner * 0.8)
        )
