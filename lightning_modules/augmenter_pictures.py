"""The pictures of an augmenter's test: what it rebuilds, how its latent space runs, what strength does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from synfer.pictures.captioned_grid import FaceColumns, save_captioned_grid
from synfer.pictures.sample_grid import save_sample_grid
from synfer.synthesis.request import SynthesisRequest
from synfer.synthesis.sources import SourceFaces
from synfer.synthesis.vae_gan.synthesiser import VAEGANSynthesiser
from synfer.synthesis.vae_gan.views import reconstructions, strengths, walk

_PAIRS, _STEPS = 4, 9
_STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def save_latent_pictures(
    synthesiser: VAEGANSynthesiser, sources: SourceFaces, expressions: Sequence[str], seed: int, folder: Path
) -> None:
    """Writes ``reconstructions.png``, ``latent_walk.png`` and ``strength.png``, a row per expression each.

    Args:
        synthesiser: in evaluation mode, with its sources.
        sources: the training faces.
        expressions: those of the rows; one without a face is left out.
        seed: of the faces at growing strength.
        folder: made if missing.
    """
    names = [name for name in expressions if len(sources.rows_of(name)) >= 2]
    if not names:
        return
    some = {name: _spread(sources.rows_of(name), _PAIRS) for name in names}
    shown = [reconstructions(synthesiser, sources, some[name]) for name in names]
    blank = [[""] * len(some[name]) for name in names]
    columns = [FaceColumns("training faces", [real for real, _ in shown], blank)]
    columns += [FaceColumns("reconstructions", [made for _, made in shown], blank)]
    save_captioned_grid(columns, names, folder / "reconstructions.png")

    first = np.array([some[name][0] for name in names])
    line = walk(synthesiser, sources, first, np.roll(first, -1), _STEPS)
    titles = [f"{name} …" for name in names]
    save_sample_grid(line, titles, _STEPS, folder / "latent_walk.png")

    request = SynthesisRequest.from_expressions(names, range(len(names)), seed, synthesiser.sampling, ())
    moved = strengths(synthesiser, request, _STRENGTHS).unflatten(0, (len(names), len(_STRENGTHS)))
    captions = [[f"{strength:g}" for strength in _STRENGTHS] for _ in names]
    title = f"{synthesiser.sampling.mode}, strength"
    save_captioned_grid([FaceColumns(title, list(torch.unbind(moved)), captions)], names, folder / "strength.png")


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Returns up to so many of the rows, at even distances: the first ones of a set may show one person."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
