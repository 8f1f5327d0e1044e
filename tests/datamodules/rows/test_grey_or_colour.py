"""One channel for grey pictures, three for colour, and what becomes of both in one batch."""

from __future__ import annotations

import pytest
import torch

from datamodules.rows.grey_or_colour import as_rgb, is_grey, join_pictures

GREY = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4)
COLOUR = torch.arange(96, dtype=torch.uint8).view(2, 3, 4, 4)


def test_three_channels_of_either() -> None:
    assert torch.equal(as_rgb(GREY), torch.cat([GREY, GREY, GREY], dim=1))
    assert as_rgb(GREY).data_ptr() == GREY.data_ptr()  # no copy
    assert as_rgb(COLOUR) is COLOUR


@pytest.mark.parametrize(("images", "expected"), [(GREY, True), (COLOUR, False), (as_rgb(GREY).contiguous(), True)])
def test_grey_is_told_by_the_pixels(images: torch.Tensor, expected: bool) -> None:
    assert is_grey(images) == expected


def test_one_grey_picture_beside_a_coloured_one() -> None:
    almost = as_rgb(GREY).clone()
    almost[1, 2, 3, 3] += 1
    assert not is_grey(almost)
    assert torch.equal(join_pictures([GREY, almost]), torch.cat([as_rgb(GREY), almost]))


def test_a_joined_batch_has_one_channel_where_nothing_is_lost() -> None:
    three = as_rgb(GREY).contiguous()
    assert torch.equal(join_pictures([GREY, three]), torch.cat([GREY, GREY]))
    assert join_pictures([GREY, COLOUR]).shape == (4, 3, 4, 4)
    assert join_pictures([three, three]).shape == (4, 3, 4, 4)  # nobody has asked for one channel: as they came
