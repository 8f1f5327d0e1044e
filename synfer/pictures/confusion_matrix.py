"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from synfer.foundation.atomic_file import atomic_write


def save_confusion_matrix(
    confusion: Tensor,
    names: Sequence[str],
    path: Path,
    title: str,
    rows: str = "true",
    columns: str = "predicted",
) -> Path:
    """Writes a confusion matrix as PNG: rows are true classes and shaded by share, cells hold counts.

    Args:
        confusion: counts (K, K), rows true, columns predicted.
        names: K expression names.
        path: where to write; missing folders are made.
        title: text above the picture.
        rows: what the rows are.
        columns: what the columns are.

    Returns:
        ``path``.
    """
    # Figure without pyplot: no global state, no display, safe beside other threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = confusion.to("cpu").double()
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    side = 1.6 + 0.62 * len(names)
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=45, ha="right")
    axes.set_yticks(ticks, names)
    axes.set(xlabel=columns, ylabel=rows, title=title)
    for row in ticks:
        for column in ticks:
            share = float(shares[row, column])
            text = f"{int(counts[row, column])}\n{share:.0%}"
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png")
    return path
