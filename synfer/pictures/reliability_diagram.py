"""A reliability diagram, which shows whether probabilities mean what they say."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from synfer.foundation.atomic_file import atomic_write


def save_reliability_diagram(confidence: Tensor, right: Tensor, path: Path, title: str, bins: int = 15) -> Path:
    """Writes a reliability diagram (DeGroot and Fienberg 1983) as PNG.

    Args:
        confidence: probability of the chosen class, (n,).
        right: bool (n,): whether that class was the true one.
        path: where to write; missing folders are made.
        title: text above the picture.
        bins: equal intervals of confidence.

    Returns:
        ``path``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bin_of = (confidence.cpu().double() * bins).long().clamp(0, bins - 1)
    count = torch.bincount(bin_of, minlength=bins)
    hits = torch.bincount(bin_of, weights=right.cpu().double(), minlength=bins)
    filled = count > 0
    centre = (torch.arange(bins) + 0.5) / bins
    figure = Figure(figsize=(4.5, 5.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color="grey", linewidth=1)
    upper.bar(centre[filled].numpy(), (hits / count.clamp_min(1))[filled].numpy(), width=0.9 / bins)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right", title=title)
    lower.bar(centre.numpy(), count.numpy(), width=0.9 / bins, color="grey")
    lower.set(xlabel="confidence", ylabel="rows")
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png")
    return path
