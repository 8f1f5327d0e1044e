"""A picture of some rows of a data set: a card each, with the face, its labels and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from synfer.pictures.sample_grid import save_png

_COLUMNS, _WIDTH, _EDGE, _PAD = 4, 1000, 8, 6
_FACE, _WHOLE, _LINE, _HEADING = 108, 80, 15, 54
_INK, _PALE, _FRAME, _BAR = (20, 20, 20), (110, 110, 110), (215, 215, 215), (165, 200, 240)
_MADE, _BOX, _OUTLINE = (205, 95, 0), (230, 30, 30), (40, 160, 60)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class SampleCard:
    """What is shown of one row.

    Attributes:
        face: as its reader gives it, uint8 (H, W, 3), RGB.
        title: the label.
        shares: name → probability, drawn as bars; () = the title says all.
        lines: text below them; what is too long loses its beginning, for names differ at their ends.
        whole: the picture that the face was cut out of, uint8 (H, W, 3); None = the face is the picture.
        box: of the face in it: left, top, right, bottom in its pixels.
        points: x and y of points of the face in its pixels.
        outline: x and y of the corners of what is seen of it in its pixels, in turn.
        is_synthetic: whether the face was made.
    """

    face: np.ndarray
    title: str
    shares: Sequence[tuple[str, float]] = ()
    lines: Sequence[str] = ()
    whole: np.ndarray | None = None
    box: tuple[int, int, int, int] | None = None
    points: Sequence[tuple[float, float]] = ()
    outline: Sequence[tuple[float, float]] = ()
    is_synthetic: bool = False


def save_sample_cards(cards: Sequence[SampleCard], title: str, subtitle: str, path: Path) -> None:
    """Writes the cards as PNG, 1000 pixels wide, four in a row.

    Args:
        cards: at least one.
        title: first line.
        subtitle: second line, in small type.
        path: where to; missing folders are made.

    Raises:
        ValueError: no card.
    """
    if not cards:
        raise ValueError(f"'{path}': found no row to show, expected at least one")
    fonts = ImageFont.load_default(16), ImageFont.load_default(12)
    width = (_WIDTH - _EDGE) // _COLUMNS
    has_whole = any(card.whole is not None for card in cards)
    text = max(_height_of_text(card) for card in cards)
    height = max(_FACE + (_WHOLE + _PAD if has_whole else 0), text) + 2 * _PAD
    rows = -(-len(cards) // _COLUMNS)
    sheet = Image.new("RGB", (_WIDTH, _HEADING + rows * (height + _EDGE)), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    draw.text((_EDGE, 8), _fitting(title, fonts[0], _WIDTH - 2 * _EDGE), fill=_INK, font=fonts[0])
    draw.text((_EDGE, 31), _fitting(subtitle, fonts[1], _WIDTH - 2 * _EDGE, at_end=True), fill=_PALE, font=fonts[1])
    for place, card in enumerate(cards):
        left, top = _EDGE + place % _COLUMNS * width, _HEADING + place // _COLUMNS * (height + _EDGE)
        _draw_card(sheet, draw, card, (left, top, left + width - _EDGE, top + height), fonts)
    save_png(sheet, path, {})


def _height_of_text(card: SampleCard) -> int:
    return 20 + _LINE * (len(card.shares) + len(card.lines) + card.is_synthetic)


def _draw_card(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    card: SampleCard,
    edges: tuple[int, int, int, int],
    fonts: tuple[_Font, _Font],
) -> None:
    left, top, right, _ = edges
    draw.rectangle(edges, outline=_MADE if card.is_synthetic else _FRAME, width=2 if card.is_synthetic else 1)
    left, top = left + _PAD, top + _PAD
    face = _within(card.face, _FACE, _FACE)
    sheet.paste(face, (left + (_FACE - face.width) // 2, top))
    if card.whole is not None:
        _draw_whole(sheet, draw, card, (left, top + _FACE + _PAD))
    x, y = left + _FACE + _PAD + 2, top
    room = right - _PAD - x
    draw.text((x, y), _fitting(card.title, fonts[0], room, at_end=True), fill=_INK, font=fonts[0])
    y += 20
    if card.is_synthetic:
        draw.text((x, y), "synthetic", fill=_MADE, font=fonts[1])
        y += _LINE
    for name, share in card.shares:
        draw.rectangle((x, y + 2, x + round(room * min(1.0, share)), y + _LINE - 2), fill=_BAR)
        draw.text((x + 2, y), _fitting(f"{name} {share:.2f}", fonts[1], room, at_end=True), fill=_INK, font=fonts[1])
        y += _LINE
    for line in card.lines:
        draw.text((x, y), _fitting(line, fonts[1], room), fill=_PALE, font=fonts[1])
        y += _LINE


def _draw_whole(sheet: Image.Image, draw: ImageDraw.ImageDraw, card: SampleCard, corner: tuple[int, int]) -> None:
    assert card.whole is not None
    small = _within(card.whole, _FACE, _WHOLE)
    left, top = corner[0] + (_FACE - small.width) // 2, corner[1]
    across, down = small.width / card.whole.shape[1], small.height / card.whole.shape[0]
    if card.outline:
        # Drawn on the picture itself, beyond whose edges there is text.
        corners = [(x * across, y * down) for x, y in card.outline]
        ImageDraw.Draw(small).line([*corners, corners[0]], fill=_OUTLINE, width=2)
    for x, y in card.points:
        x, y = x * across, y * down
        ImageDraw.Draw(small).ellipse((x - 1, y - 1, x + 1, y + 1), fill=_BOX)
    sheet.paste(small, (left, top))
    if card.box is None:
        return
    inside = [
        min(max(0, round(edge * scale)), limit - 1)
        for edge, scale, limit in zip(card.box, (across, down) * 2, small.size * 2, strict=True)
    ]
    draw.rectangle((left + inside[0], top + inside[1], left + inside[2], top + inside[3]), outline=_BOX, width=2)


def _within(pixels: np.ndarray, width: int, height: int) -> Image.Image:
    """Returns a picture that fits a space; small ones are enlarged without smoothing, to show what there is."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = min(width / picture.width, height / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _fitting(text: str, font: _Font, room: int, at_end: bool = False) -> str:
    """Returns a text that is no wider than a space; "…" stands for what was left away, at its end or its beginning."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1] if at_end else text[1:]
    return f"{text}…" if at_end else f"…{text}"
