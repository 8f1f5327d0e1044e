from __future__ import annotations

import numpy as np
import torch

from synfer.synthesis.vae_gan.views import reconstructions, strengths, walk
from tests.fixtures.tiny_generator import NAMES, SIDE
from tests.synfer.synthesis.vae_gan.test_synthesiser import SIX, request, sources, synthesiser


def test_reconstructions_stand_beside_what_was_encoded() -> None:
    found, rows = sources(), np.array([0, 4, 11])
    real, rebuilt = reconstructions(synthesiser(), found, rows)
    assert real.shape == rebuilt.shape == (3, 3, SIDE, SIDE) and rebuilt.dtype == torch.uint8
    assert (real.int() - found.images(rows).int()).abs().amax() <= 1


def test_a_walk_begins_and_ends_at_reconstructions() -> None:
    plain, found = synthesiser(), sources()
    first, last = np.array([0, 4]), np.array([7, 11])
    line = walk(plain, found, first, last, 5).unflatten(0, (2, 5)).int()
    for rows, place in ((first, 0), (last, -1)):
        assert (line[:, place] - reconstructions(plain, found, rows)[1].int()).abs().amax() <= 1
    steps = (line[:, 1:] - line[:, :1]).abs().float().mean((2, 3, 4))
    assert (steps.diff(dim=1) > 0).all()  # further away at each step


def test_strength_grows_from_left_to_right_from_the_same_face() -> None:
    plain = synthesiser(strength=3.0)
    moved = strengths(plain, request(SIX), [0.0, 3.0]).unflatten(0, (6, 2))
    still = synthesiser(strength=0.0).synthesise(request(SIX)).images
    assert (moved[:, 0].int() - still.int()).abs().amax() <= 1
    assert (moved[:, 1].int() - plain.synthesise(request(SIX)).images.int()).abs().amax() <= 1
    assert set(NAMES) == set(SIX)
