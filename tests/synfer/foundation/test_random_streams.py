"""No two uses draw the same random numbers, and none of the numbers ever changes."""

from __future__ import annotations

from enum import IntEnum

import pytest

from synfer.foundation.counter_based_random import keyed_seed, keyed_uniform
from synfer.foundation.random_streams import DrawnFace, Mixing, Stream


@pytest.mark.parametrize("streams", [Stream, Mixing, DrawnFace])
def test_no_number_is_given_twice(streams: type[IntEnum]) -> None:
    assert len(streams) == len(streams.__members__)  # a second name of a number would be an alias


def test_a_name_draws_what_its_number_drew() -> None:
    assert Stream.TRAINING_NOISE == 0xD1 and Stream.CAPTION == 0xCA97 and Mixing.SYNTHETIC_SLOTS == 3
    assert keyed_seed(7, 1, Stream.TRAINING_NOISE) == keyed_seed(7, 1, 0xD1)
    assert (keyed_uniform([1, 2], 3, 7, DrawnFace.MIRROR) == keyed_uniform([1, 2], 3, 7, 4)).all()
