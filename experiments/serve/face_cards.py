"""Faces and what is seen in them, as HTML of the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from torch import Tensor

from experiments.sample.face_files import as_picture
from experiments.serve.face_readers import Reading
from synfer.pictures.sample_grid import png_text

STYLE = """
h1 { font-size: 1.4rem !important; }
.faces { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 18px; }
.faces figure { margin: 0; max-width: 340px; }
.faces img { width: 100%; aspect-ratio: 1; border-radius: 10px; display: block; margin: 0 !important; }
.faces figcaption { display: flex; justify-content: space-between; margin: 6px 0 4px; font-size: 13px; }
.faces figcaption a { text-decoration: underline; }
.bars { display: grid; grid-template-columns: auto 1fr 48px; gap: 3px 8px; align-items: center; font-size: 13px; }
.bars h4 { grid-column: 1 / -1; margin: 8px 0 2px !important; font-size: 13px; font-weight: 600; }
.bars .bar { height: 11px; border-radius: 3px; background: var(--background-fill-secondary, #eee); }
.bars .bar i { display: block; height: 100%; border-radius: 3px; background: #7f8ea3; }
.bars .asked { font-weight: 600; }
.bars .bar.asked i { background: #0072b2; }
.bars .share { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.hint { font-size: 14px; opacity: 0.8; }
#expression input:checked, #expression input:checked:focus {
  background-color: #2563eb !important;
  border-color: #2563eb !important;
  background-image: var(--radio-circle) !important;
}
.unit .min_value, .unit .max_value { display: none; }
.gradio-container { overflow: clip !important; }
#shown { position: sticky; top: 12px; align-self: flex-start; }
@media (max-width: 767px) {
  #shown { order: -1; top: 0; z-index: 100; background: var(--body-background-fill, #fff); padding-bottom: 6px; }
  .faces { display: flex; overflow-x: auto; gap: 10px; }
  .faces figure { flex: 0 0 44%; }
  .faces .bars { grid-template-columns: auto 1fr 38px; gap: 1px 5px; font-size: 11px; }
  .faces figcaption { font-size: 11px; }
  .faces .bars .bar { height: 8px; }
}
"""


def face_card(
    image: Tensor, title: str, file_name: str, text: Mapping[str, str], readings: Sequence[Reading], asked: str
) -> str:
    """Returns one face with its bars.

    Args:
        image: uint8 (3, H, W), RGB.
        title: the line beneath it; with the expression before it, what the picture is for those who cannot see it.
        file_name: under which it is saved.
        text: what the saved file says of itself, by keyword.
        readings: what is seen in it.
        asked: the expression that was asked for.
    """
    address = as_address(image, text)
    bars = "".join(bars_of(reading, asked) for reading in readings)
    return (
        f'<figure><img src="{address}" alt="{escape(asked)}, {escape(title)}"><figcaption><span>{escape(title)}</span>'
        f'<a download="{escape(file_name)}" href="{address}">save</a></figcaption>'
        f'<div class="bars">{bars}</div></figure>'
    )


def cards(figures: Sequence[str]) -> str:
    """Returns several faces beside each other, or below each other where there is no room."""
    return f'<div class="faces">{"".join(figures)}</div>'


def bars_of(reading: Reading, asked: str | None = None) -> str:
    """Returns the bars of one reader, a row per expression in the order of its label space.

    Args:
        reading: what it sees.
        asked: the expression to mark; None = none.
    """
    rows = [f"<h4>{escape(reading.reader)}: {escape(reading.chosen)}</h4>"]
    for name, share in reading.probabilities.items():
        mark = " asked" if name == asked else ""
        rows.append(
            f'<span class="name{mark}">{escape(name)}</span>'
            f'<span class="bar{mark}"><i style="width: {100 * share:.1f}%"></i></span>'
            f'<span class="share{mark}">{100 * share:.0f} %</span>'
        )
    return "".join(rows)


def as_address(image: Tensor, text: Mapping[str, str]) -> str:
    """Returns a face, uint8 (3, H, W), as a PNG that is its own address, with what it says of itself."""
    buffer = io.BytesIO()
    as_picture(image).save(buffer, format="png", pnginfo=png_text(text))
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
