"""What all charts of a comparison share: size, colours, style, and how one becomes PNG and SVG."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.compare.intervals import Interval

WIDTH = 5.0
"""Inches. At 72 points an inch this is a phone's width, so that text is as large there as it is set here."""

LINE = 0.18
"""Inches of one line of text."""

MAX_LINES = 6
"""Lines or kinds of bars that can still be told apart."""

COLOURS = {
    "page": ("#fefefe", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "muted": ("#59636e", "#9aa4af"),
    "grid": ("#dde2e7", "#30363d"),
    "series-1": ("#0072b2", "#56b4e9"),
    "series-2": ("#d55e00", "#ff9a4d"),
    "series-3": ("#00795a", "#3ddba6"),
    "series-4": ("#a8478a", "#f2a7d0"),
    "series-5": ("#806600", "#e6c94c"),
    "series-6": ("#4d5257", "#c0c7ce"),
}
"""Role → colour on a light and on a dark page, after Okabe and Ito; markers and dashes differ as well."""

LIGHT = {role: light for role, (light, _) in COLOURS.items()}
SERIES = [LIGHT[f"series-{n}"] for n in range(1, MAX_LINES + 1)]
MARKERS = "osD^vP"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))

LABEL: dict[str, Any] = {
    "linespacing": 1.1,
    "bbox": {"facecolor": LIGHT["page"], "edgecolor": "none", "pad": 1.0},  # hides the grid behind the text
}

STYLE = {
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "grid.color": LIGHT["grid"],
    "legend.fontsize": 10,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Chart:
    """A finished chart.

    Attributes:
        name: stem of its files.
        title: one line.
        note: what must be known to read it; "" for nothing.
        svg: to be put into a page that defines the roles of :data:`COLOURS` as CSS variables.
    """

    name: str
    title: str
    note: str
    svg: str


def new_figure(height: float) -> tuple[Figure, Axes]:
    """Returns a figure of a phone's width and some height in inches, and its axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def wrapped(label: str) -> str:
    """Returns a label in lines that fit into the width of a chart."""
    return "\n".join(textwrap.wrap(label, 50, break_on_hyphens=False)) or label


def height_of(labels: Sequence[str]) -> float:
    """Returns the inches that a legend of these labels needs."""
    return sum(LINE * (1.2 + wrapped(label).count("\n")) for label in labels)


def legend_below(axes: Axes) -> None:
    """Puts the legend below the axes, one label to a line."""
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(loc="outside lower left", frameon=False, ncols=1, handlelength=3)  # type: ignore[call-arg]


def finish(figure: Figure, name: str, title: str, note: str, folder: Path) -> Chart:
    """Writes the PNG of a figure into a folder and returns the chart for the page."""
    figure.savefig(folder / f"{name}.png", dpi=200, facecolor=LIGHT["page"])
    with io.StringIO() as file, matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        svg = file.getvalue()
    return Chart(name, title, note, _for_page(svg, title))


def _for_page(svg: str, title: str) -> str:
    """Returns an SVG without its file header, with the page's font, and its colours by role."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # ids that nothing refers to, the same in every chart
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", svg)
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title.replace(chr(34), "")}"', 1)


def draw_seeds(axes: Axes, xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
    """Draws the single seeds as small dots."""
    axes.scatter(xs, ys, s=12, color=colour, alpha=0.55, linewidths=0, zorder=3, clip_on=False)


def bars_of(intervals: Sequence[Interval], factor: float) -> list[list[float]]:
    """Returns how far the bars of means reach down and up, 0 where there is no interval."""
    down = [factor * (i.mean - (i.mean if i.low is None else i.low)) for i in intervals]
    up = [factor * ((i.mean if i.high is None else i.high) - i.mean) for i in intervals]
    return [down, up]


def clip_axis(axes: Axes, which: Literal["x", "y"], bounds: tuple[float, float] | None, factor: float) -> None:
    """Lets an axis end where values end: a share is never above 100 %."""
    if bounds is None:
        return
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    ends = max(low, factor * bounds[0]), min(high, factor * bounds[1])
    if which == "x":
        axes.set_xlim(*ends)
    else:
        axes.set_ylim(*ends)
