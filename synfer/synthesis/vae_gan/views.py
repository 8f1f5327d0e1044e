"""What pictures show of a VAE-GAN's latent space: reconstructions, a walk from face to face, growing strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from synfer.synthesis.request import SynthesisRequest
from synfer.synthesis.sources import SourceFaces
from synfer.synthesis.vae_gan.perturbation import PerturbationSettings
from synfer.synthesis.vae_gan.synthesiser import VAEGANSynthesiser


@torch.no_grad()
def reconstructions(synthesiser: VAEGANSynthesiser, sources: SourceFaces, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Returns faces as the encoder sees them, and as they come back from the means of their codes.

    Args:
        synthesiser: in evaluation mode.
        sources: the faces.
        rows: n of them, int64.

    Returns:
        Two uint8 tensors (n, 3, S, S).
    """
    images = sources.images(rows)
    return _as_images(synthesiser.as_input(images)), _decoded(
        synthesiser, synthesiser.encode(images)[0], _names(sources, rows)
    )


@torch.no_grad()
def walk(
    synthesiser: VAEGANSynthesiser, sources: SourceFaces, first: np.ndarray, last: np.ndarray, steps: int
) -> Tensor:
    """Returns faces on straight lines between the codes of two faces, uint8 (n · steps, 3, S, S), line by line.

    A decoder that is told the expression is told that of the nearer end.

    Args:
        synthesiser: in evaluation mode.
        sources: the faces.
        first: where n lines begin, int64 row numbers (n,).
        last: where they end, (n,).
        steps: faces on a line, at least 2, both ends included.
    """
    begin, end = (synthesiser.encode(sources.images(rows))[0] for rows in (first, last))
    share = torch.linspace(0, 1, steps, device=begin.device)[None, :, None]
    codes = (begin[:, None] * (1 - share) + end[:, None] * share).flatten(0, 1)
    ends = zip(_names(sources, first), _names(sources, last), strict=True)
    names = [b if step > (steps - 1) / 2 else a for a, b in ends for step in range(steps)]
    return _decoded(synthesiser, codes, names)


@torch.no_grad()
def strengths(synthesiser: VAEGANSynthesiser, request: SynthesisRequest, of: Sequence[float]) -> Tensor:
    """Returns the faces of a request at several strengths, uint8 (n · len(of), 3, S, S), sample by sample.

    Args:
        synthesiser: with its sources.
        request: n samples.
        of: strengths, from left to right.
    """
    settings = request.settings if isinstance(request.settings, PerturbationSettings) else synthesiser.sampling
    asked = [request.under(replace(settings, strength=strength), ()) for strength in of]
    return torch.stack([synthesiser.synthesise(each).images for each in asked], dim=1).flatten(0, 1)


def _names(sources: SourceFaces, rows: np.ndarray) -> list[str]:
    return [sources.label_space[code] for code in sources.labels(rows)]


def _decoded(synthesiser: VAEGANSynthesiser, codes: Tensor, names: Sequence[str]) -> Tensor:
    return _as_images(synthesiser.decode(codes, names))


def _as_images(faces: Tensor) -> Tensor:
    return ((faces.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
