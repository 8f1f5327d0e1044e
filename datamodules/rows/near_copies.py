"""Whether a made face is a near copy of a training face, and how often held-out real faces look like one.

A distance between distributions rewards a generator that copies real faces, so their share belongs beside each. Two
faces are near copies where their grey pixels, at 48 pixels a side, correlate by more than 0.97 (Pearson), mirrored or
not. Pictures that are in a set more than once give held-out faces such a duplicate as well: that is the level to read a
share against.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.rows.sample_table import ImageSource
from synfer.faces.face_shape import resize_faces

NEAR_COPY = 0.97
"""Correlation above which a face counts as a near copy."""
COPY_SIDE = 48
"""Side in pixels at which faces are compared; smaller ones at their own."""
MOST_FACES = 50_000
"""Training faces that are searched; of more, as many at even distances."""
_FREQUENCIES = 16
_ROWS = 2048  # faces at a time
_SLACK = 1e-4  # of rounding in the bound below


class NearCopies:
    """Searches all training faces for near copies, exactly, at a tenth of the cost of comparing all pixels.

    Faces are centred and of length 1, so that their product is their correlation. Of each the lowest 16 × 16
    frequencies (an orthonormal cosine transform) and the length of the rest are kept. Cauchy and Schwarz: the product
    of two faces is at most that of their low frequencies plus that of the lengths of their rests. The few pairs in
    which this bound lies above the threshold are compared by all pixels.

    Args:
        training: training faces.
        held_out: real faces that are none; None = there are none to compare with.
        above: correlation above which a face is a near copy, in (0, 1).
    """

    def __init__(self, training: ImageSource, held_out: ImageSource | None = None, above: float = NEAR_COPY) -> None:
        self.above, self.of = above, len(training)
        self.rows = np.linspace(0, self.of - 1, min(self.of, MOST_FACES)).round().astype(np.int64)
        self.side = min(COPY_SIDE, *training.batch(self.rows[:1]).shape[-2:])
        self._basis = _cosines(min(_FREQUENCIES, self.side), self.side)
        self._held_out, self._held_out_share = held_out, math.nan
        pixels, bounds, lengths = [], [], []
        for rows in np.array_split(self.rows, -(-len(self.rows) // _ROWS)):
            grey = grey_pixels(training.batch(rows), self.side).round()
            centred = grey - grey.mean(1, keepdim=True)
            pixels.append(grey.to(torch.uint8))
            lengths.append(centred.norm(dim=1))
            bounds.append(self._bound(F.normalize(centred, dim=1)))
        self._pixels, self._bounds, self._lengths = torch.cat(pixels), torch.cat(bounds), torch.cat(lengths)

    def find(self, images: Tensor, sources: Tensor | None = None) -> Tensor:
        """Returns which faces are near copies, bool (n,), of uint8 images (n, 1 or 3, H, W), on their device.

        Args:
            images: the faces.
            sources: uint8 (n, 1 or 3, H', W'), the training face that each was made from, which then does not count:
                no training face with its very pixels does, as it may be there more than once. None = all count.
        """
        device = images.device
        own = None if sources is None else grey_pixels(sources.to(device), self.side).round().to(torch.uint8)
        self._pixels, self._bounds, self._lengths, self._basis = (
            tensor.to(device) for tensor in (self._pixels, self._bounds, self._lengths, self._basis)
        )
        found = torch.zeros(len(images), dtype=torch.bool, device=device)
        for part in torch.arange(len(images), device=device).split(_ROWS):
            faces = unit_faces(images[part], self.side)
            for some in (faces, faces.unflatten(1, (self.side, self.side)).flip(-1).flatten(1)):
                bound = self._bound(some)
                for start in range(0, len(self._bounds), _ROWS):
                    near = bound @ self._bounds[start : start + _ROWS].T > self.above - _SLACK
                    rows, columns = near.any(1).nonzero()[:, 0], near.any(0).nonzero()[:, 0] + start
                    if len(rows):
                        # One side is centred, so the other need not be.
                        product = some[rows] @ self._pixels[columns].float().T
                        close = (product > self.above * self._lengths[columns]) & (self._lengths[columns] > 0)
                        copy, of = close.nonzero(as_tuple=True)
                        copy, of = part[rows[copy]], columns[of]
                        if own is not None:  # of the few close pairs alone: all pairs would fill the memory
                            other = (own[copy] != self._pixels[of]).any(1)
                            copy = copy[other]
                        found[copy] = True
        return found

    def held_out_share(self) -> float:
        """Returns the share of near copies among the held-out faces; NaN where there are none. Computed once."""
        if math.isnan(self._held_out_share) and self._held_out is not None and len(self._held_out):
            parts = np.array_split(np.arange(len(self._held_out)), -(-len(self._held_out) // _ROWS))
            device = self._pixels.device
            count = sum(int(self.find(self._held_out.batch(rows).to(device)).sum()) for rows in parts)
            self._held_out_share = count / len(self._held_out)
        return self._held_out_share

    def _bound(self, faces: Tensor) -> Tensor:
        """Returns low frequencies and the length of the rest, (n, k² + 1)."""
        low = (self._basis @ faces.unflatten(1, (self.side, self.side)) @ self._basis.T).flatten(1)
        rest = (faces.square().sum(1, keepdim=True) - low.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
        return torch.cat([low, rest], dim=1)


def pixel_correlation(images: Tensor, others: Tensor) -> Tensor:
    """Returns the correlation of each image with the one beside it, float32 (n,): the measure of near copies.

    Args:
        images: uint8 (n, 1 or 3, H, W).
        others: uint8 (n, 1 or 3, H', W').
    """
    side = min(COPY_SIDE, *images.shape[-2:], *others.shape[-2:])
    return (unit_faces(images, side) * unit_faces(others, side)).sum(1)


def unit_faces(images: Tensor, side: int) -> Tensor:
    """Returns grey pixels without mean, of length 1: float32 (n, side²); of a constant face zeros, near to nothing."""
    grey = grey_pixels(images, side)
    return F.normalize(grey - grey.mean(1, keepdim=True), dim=1)


def grey_pixels(images: Tensor, side: int) -> Tensor:
    """Returns the mean over the colours, cut and resized: float32 (n, side²) in [0, 255], of uint8 (n, C, H, W)."""
    grey = images.float().mean(1, keepdim=True)  # of one channel: itself
    return resize_faces(grey, side).flatten(1)


def _cosines(count: int, side: int) -> Tensor:
    """Returns the first ``count`` rows of the orthonormal cosine transform (DCT-II) of ``side`` numbers."""
    place, frequency = torch.arange(side, dtype=torch.float64), torch.arange(count, dtype=torch.float64)
    rows = torch.cos(math.pi / side * (place + 0.5) * frequency[:, None]) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows.float()
