"""The features of a drawn face, which its action units move: eyes, brows, nose, mouth; and glasses."""

from __future__ import annotations

import numpy as np

from synfer.faces.drawn.canvas import colour_of_hue, pixelwise
from synfer.faces.drawn.face import PICTURE_SIDES, Face


def eyes(face: Face) -> None:
    """Draws the eyes as AU5, AU6, AU7 and AU9 open and narrow them, with lids, bags and crow's feet."""
    upper_raise, tight = face.au("AU5"), face.au("AU7")
    cheek = face.au_sides(6) * face.side_gain
    brow_down, inner_up = face.au_sides(4), face.au_sides(1)
    squeeze = 0.35 * face.au("AU9")
    rest = face.trait("eye_opening", 0.056, 0.088)
    iris_colour = colour_of_hue(face.trait("eye_hue", 0.05, 0.62), 0.55, face.trait("eye_shade", 0.12, 0.6))
    white = np.repeat(np.array([[0.95, 0.94, 0.92]], dtype=np.float32), len(rest), axis=0)
    lash = np.minimum(face.hair * 0.5, face.line * 0.6)
    ew = face.eye_width
    for side, sign in PICTURE_SIDES:
        u = sign * face.eye_u + face.yaw
        window = face.window(u, face.eye_v - 0.02, ew + 0.10, 0.24)
        x = (window.u - pixelwise(u)) * sign  # outwards
        y = window.v - pixelwise(face.eye_v) + pixelwise(face.trait("eye_slant", -0.10, 0.22)) * x
        p = x / pixelwise(ew)
        bow = 1 - p * p
        opening = np.clip(1 + 0.80 * upper_raise - 0.42 * tight - 0.18 * cheek[:, side] - squeeze, 0.18, 2)
        worry = np.minimum(inner_up[:, side], 1.0) * (0.35 + 0.65 * brow_down[:, side])
        above = rest * opening
        below = rest * (0.62 + 0.15 * upper_raise - 0.62 * cheek[:, side] - 0.42 * tight - squeeze)
        # Raised inner brows pull the inner half of the upper lid up and let its outer half hang.
        upper = -pixelwise(above) * bow * (1 - pixelwise(0.45 * worry) * p)
        lower = pixelwise(below) * bow
        # socket: a soft shade above the lid, deeper under a lowered brow
        socket = np.maximum(1 - (p * p) / 1.8 - (y + 0.10) ** 2 * 60, 0)
        window.tint(socket, (0.80, 0.72, 0.72), 0.35 + 0.5 * brow_down[:, side])
        inside = np.maximum.reduce([upper - y, y - lower, (np.abs(p) - 1) * 0.1])
        alpha = window.cover(inside)
        window.paint(alpha, white)
        gaze_x = x - pixelwise(sign * face.trait("gaze_x", -0.035, 0.035))
        gaze_y = y - pixelwise(face.trait("gaze_y", -0.015, 0.02))
        distance = np.sqrt(gaze_x * gaze_x + gaze_y * gaze_y)
        radius = pixelwise(face.trait("iris_size", 0.056, 0.072))
        window.paint(np.minimum(alpha, window.cover(distance - radius)), iris_colour)
        window.paint(np.minimum(alpha, window.cover(distance - 0.45 * radius)), lash * 0.3)
        glint = (gaze_x - sign * 0.02) ** 2 + (gaze_y + 0.025) ** 2
        window.paint(np.minimum(alpha, np.maximum(1 - glint / 0.0006, 0)), white)
        thickness = face.trait("lashes", 0.012, 0.024)
        window.paint(window.stroke(x, y - upper, ew * 1.25, thickness), lash)
        window.paint(
            window.stroke(x, y - lower, ew * 1.1, 0.009), face.line, 0.45 + 0.4 * np.maximum(tight, cheek[:, side])
        )
        fold = y - 1.15 * upper + pixelwise(0.035 - 0.012 * upper_raise)
        window.paint(window.stroke(x, fold, ew, 0.009), face.line, face.trait("lid_fold", 0.1, 0.6) * (1 - 0.4 * tight))
        # lower-lid pouch: people have bags, cheeks and tight lids make them
        bags = np.maximum(face.trait("eye_bags", -0.3, 0.5), 0.7 * np.maximum(cheek[:, side], 0.8 * tight))
        pouch = y - lower - 0.045
        window.paint(window.stroke(x, pouch, ew * 0.9, 0.011), face.line, bags)
        # crow's feet
        for spread in (-0.45, 0.25):
            feet = y - spread * (x - pixelwise(ew)) - 0.01
            window.paint(window.stroke(x - pixelwise(ew + 0.055), feet, 0.05, 0.009), face.line, 0.6 * cheek[:, side])


def brows(face: Face) -> None:
    """Draws the brows as AU1, AU2, AU4 and AU9 move them, with the furrows between them."""
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
    for side, sign in PICTURE_SIDES:
        a1, a2, a4 = inner_up[:, side], outer_up[:, side], down[:, side]
        # A lowered brow that the inner raiser pulls up stays up inside and slopes outwards: the brow of grief and fear.
        knit = a4 * (1 - 0.8 * a1)
        u = sign * (face.eye_u + 0.015 - 0.035 * a4) + face.yaw
        v = height + 0.035 * knit + 0.045 * wrinkled
        window = face.window(u, v, length + 0.03, 0.22)
        x = (window.u - pixelwise(u)) * sign
        y = window.v - pixelwise(v)
        p = x / pixelwise(length)
        inner, outer = 0.5 - 0.5 * p, 0.5 + 0.5 * p
        curve = pixelwise(slope) * p + pixelwise(arch) * (p * p - 0.5)
        curve = curve + inner * pixelwise(-0.125 * a1 + 0.105 * knit)
        curve = curve + outer * pixelwise(-0.125 * a2 + 0.010 * knit + 0.035 * a1 * a4 * (1 - a2))
        window.paint(window.stroke(x, y - curve, length, thickness), colour, 0.92)
    # glabella: two upright furrows
    strength = down.mean(axis=1)
    window = face.window(face.yaw, face.eye_v - 0.13, 0.10, 0.16)
    x = np.abs(window.u - pixelwise(face.yaw)) - 0.042
    y = window.v - pixelwise(face.eye_v - 0.14)
    window.paint(window.stroke(y, x, 0.09, 0.012), face.line, 0.75 * strength)


def nose(face: Face) -> None:
    """Draws the nose as AU9, AU10, AU38 and AU39 move it, with its wrinkles."""
    wrinkle, dilate, narrow = face.au("AU9"), face.au("AU38"), face.au("AU39")
    lift = 0.045 * wrinkle + 0.015 * face.au_sides(10).mean(axis=1)
    width = face.trait("nose_width", 0.085, 0.14) * (1 + 0.25 * dilate - 0.25 * narrow + 0.22 * wrinkle)
    tip = face.nose_v - lift
    top = face.eye_v + 0.02
    window = face.window(face.nose_u, 0.5 * (top + tip), 0.26, 0.32)
    u, v = window.u - pixelwise(face.nose_u), window.v - pixelwise(tip)
    along = (window.v - pixelwise(top)) / pixelwise(tip - top)  # 0 at the root, 1 at the tip
    # The bridge runs from between the eyes (less yaw) to the tip (more).
    bridge = u + pixelwise(0.5 * face.yaw) * (1 - along)
    light = np.sign(face.trait("light_x", -1, 1)).astype(np.float32)
    body = np.clip(along * (1.15 - along) * 4, 0, 1) * np.maximum(1 - np.abs(bridge) * 9, 0)
    window.tint(body, (1.15, 1.13, 1.12), face.trait("nose_bridge", 0.2, 1.0))
    flank = bridge + pixelwise(light * 0.055)
    window.paint(window.stroke(along - 0.45, flank, 0.5, 0.014), face.line, face.trait("nose_bridge", 0.1, 0.45))
    ball = np.maximum(1 - (u / 0.09) ** 2 - ((v + 0.035) / 0.07) ** 2, 0)
    window.tint(ball, (1.10, 1.00, 0.98), face.trait("nose_tip", 0.2, 1.0))
    w = pixelwise(width)
    underline = v - 0.015 - 0.35 * w + (np.abs(u) / w) ** 2 * 0.35 * w
    window.paint(window.stroke(u, underline, width * 1.1, 0.012), face.line, 0.55)
    x, y = (np.abs(u) - 0.52 * w) / (0.33 * w), (v - 0.012) / (0.022 + 0.012 * pixelwise(dilate))
    window.paint(window.cover((np.sqrt(x * x + y * y) - 1) * 0.03), face.line * 0.55)
    wing = np.abs(u) - w * 1.04 + 6 * (v + 0.015) ** 2
    window.paint(window.stroke(v + 0.015, wing, 0.06, 0.012), face.line, 0.4 + 0.5 * wrinkle)
    # nose wrinkler: creases across the root and along the flanks
    for offset in (0.02, 0.30):
        across = (along - offset) * pixelwise(tip - top) + 0.30 * np.abs(bridge)
        window.paint(window.stroke(bridge, across, 0.085, 0.013), face.line, 0.85 * wrinkle)
    flanks = np.abs(bridge) - 0.075 - 0.05 * along
    window.paint(window.stroke(along - 0.45, flanks, 0.35, 0.013), face.line, 0.6 * wrinkle)


def mouth(face: Face) -> None:
    """Draws lips, teeth, tongue and moustache, chin, dimples and the folds from the nose: AU9 to AU32."""
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
    x, y = window.u - pixelwise(face.mouth_u), window.v - pixelwise(v)
    p = x / np.where(x < 0, pixelwise(half_widths[:, 0]), pixelwise(half_widths[:, 1]))
    square = p * p
    middle = 0.5 * (corners[:, 0] + corners[:, 1])
    lean = 0.5 * (corners[:, 1] - corners[:, 0])
    # The middle gives way against the corners: a smile sags, and a mouth turned down bulges.
    centre = square * (pixelwise(middle) + pixelwise(lean) * p) - pixelwise(0.3 * middle) * (1 - square)
    centre = centre + pixelwise(0.03 * chin_up) * square
    bow, flat_bow = 1 - square, 1 - square * square
    inner_up, inner_down = centre - pixelwise(gap_up) * flat_bow, centre + pixelwise(gap_down) * flat_bow
    outer_up = inner_up - pixelwise(upper_lip) * bow * (0.78 + 1.0 * square)
    outer_down = inner_down + pixelwise(lower_lip) * flat_bow

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
    cavity = window.cover(inside - pixelwise(mouth_line))
    n = len(v)
    window.paint(cavity, np.repeat(np.array([[0.26, 0.07, 0.08]], dtype=np.float32), n, axis=0))
    total = gap_up + gap_down
    teeth = np.repeat(np.array([[0.95, 0.93, 0.88]], dtype=np.float32), n, axis=0)
    shows = np.clip((total - 0.02) * 30, 0, 1)
    upper_teeth = np.minimum(0.055, 0.75 * total) * np.clip(0.5 + pull.mean(axis=1) + lift + 0.4 * stretch, 0, 1)
    within = np.minimum(cavity, window.cover(inside + 0.004))
    window.paint(np.minimum(within, window.cover(y - inner_up - pixelwise(upper_teeth))), teeth, shows)
    lower_teeth = np.minimum(0.045, 0.5 * total) * np.clip(1.2 * lower_down + 0.8 * stretch, 0, 1)
    window.paint(np.minimum(within, window.cover(inner_down - pixelwise(lower_teeth) - y)), teeth * 0.93, shows)
    tongue_out = au("AU19")
    tongue_tone = np.repeat(np.array([[0.80, 0.36, 0.38]], dtype=np.float32), n, axis=0)
    rise = pixelwise(0.5 * face.jaw * gap_down)
    bed = np.minimum(within, window.cover(inner_down - rise + 2.5 * x * x - y))
    window.paint(bed, tongue_tone, 0.75 * np.clip(face.jaw * 1.5, 0, 1))
    tx, ty = x / 0.10, (y - pixelwise(gap_down + 0.04)) / 0.10
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
    for side, sign in PICTURE_SIDES:
        # where the curve of the lips ends on this side
        end_u, end_v = half_widths[:, side], corners[:, side] + 0.03 * chin_up
        cx, cy = x * sign - pixelwise(end_u + 0.022), y - pixelwise(end_v)
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
        span = pixelwise(face.mouth_v - face.nose_v + 0.04)
        t = (window.v - pixelwise(face.nose_v - 0.03)) / span
        path = 0.125 + pixelwise(end_u - 0.05) * (1.5 * t - 0.5 * t * t)
        fold = (window.u - pixelwise(face.mouth_u)) * sign - path
        window.paint(window.stroke(t - 0.5, fold, 0.55, 0.013), face.line, deep)


def glasses(face: Face) -> None:
    """Draws glasses on some."""
    has = face.has("glasses", 0.12)
    if not has.any():
        return
    window = face.window(face.yaw, face.eye_v, 0.70, 0.26)
    u, v = window.u - pixelwise(face.yaw), window.v - pixelwise(face.eye_v + 0.01)
    size = face.trait("glasses_size", 0.85, 1.15)
    x = (np.abs(u) - pixelwise(face.eye_u)) / pixelwise(0.20 * size)
    y = v / pixelwise(0.155 * size)
    x, y = x * x, y * y
    rim = np.abs(np.sqrt(x + y - 0.45 * np.minimum(x, 1) * np.minimum(y, 1)) - 1) * 0.17 - 0.013
    bridge = np.maximum(np.abs(u) - pixelwise(face.eye_u - 0.19 * size), np.abs(v + 0.03) - 0.012)
    frame = colour_of_hue(face.trait("clothes_hue"), 0.6, face.trait("glasses_size", 0.05, 0.45))
    window.paint(window.cover(np.minimum(rim, bridge)), frame, has)
