"""Augmentation: per-sample, exact, and grey views stay grey views."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from datamodules.loading import augmentation
from datamodules.loading.augmentation import UNIFORM_COLUMNS, Augmentation, augment

NOTHING = Augmentation(flip=0, rotation=0, translate=0, scale=0, contrast=0, brightness=0, erasing=0)


def _faces(count: int = 6, side: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, side, side, generator=generator), torch.rand(
        count, UNIFORM_COLUMNS, generator=generator
    )


@pytest.mark.parametrize("field", ["flip", "rotation", "translate", "scale", "contrast", "brightness", "erasing"])
@pytest.mark.parametrize("value", [-0.1, 200.0, math.nan])
def test_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"data\.augmentation\.{field}="):
        Augmentation(**{field: value})


def test_no_version_at_all_is_named() -> None:
    with pytest.raises(ValueError, match=r"data\.augmentation\.cached_views=0: expected at least 1, or null"):
        Augmentation(cached_views=0)
    with pytest.raises(ValueError, match=r"data\.augmentation\.uncached_fraction=0\.5 with cached_views=null"):
        Augmentation(uncached_fraction=0.5)
    with pytest.raises(ValueError, match=r"data\.augmentation\.uncached_fraction=0\.95: expected a number in"):
        Augmentation(uncached_fraction=0.95, cached_views=2)


def test_nothing_changes_nothing() -> None:
    image, uniform = _faces()
    assert torch.equal(augment(image, NOTHING, uniform), image)
    assert augment(image, Augmentation(enabled=False), uniform) is image


def test_flip_is_a_mirror_image() -> None:
    image, uniform = _faces()
    settings = Augmentation(flip=0.5, rotation=0, translate=0, scale=0, contrast=0, brightness=0, erasing=0)
    uniform[:, 0] = torch.tensor([0.0, 0.9, 0.49, 0.5, 0.1, 0.7])
    flipped = augment(image, settings, uniform)
    for index, is_flipped in enumerate([True, False, True, False, True, False]):
        expected = image[index].flip(-1) if is_flipped else image[index]
        torch.testing.assert_close(flipped[index], expected, atol=1e-5, rtol=0)


def test_shift_moves_the_picture() -> None:
    image, uniform = _faces(side=16)
    settings = Augmentation(flip=0, rotation=0, translate=0.25, scale=0, contrast=0, brightness=0, erasing=0)
    uniform[:, 3], uniform[:, 4] = 1.0, 0.5  # +25 % of 16 pixels in x, none in y
    shifted = augment(image, settings, uniform)
    torch.testing.assert_close(shifted[..., :-4], image[..., 4:], atol=1e-5, rtol=0)
    torch.testing.assert_close(shifted[..., -4:], image[..., 12:].flip(-1), atol=1e-5, rtol=0)  # reflection


def test_quarter_turn_on_a_picture_that_is_not_square_keeps_angles() -> None:
    settings = Augmentation(flip=0, rotation=90, translate=0, scale=0, contrast=0, brightness=0, erasing=0)
    image = torch.zeros(1, 1, 9, 15)
    image[0, 0, 4, 5:10] = 1  # a line of five pixels through the centre
    uniform = torch.full((1, UNIFORM_COLUMNS), 0.5)
    uniform[0, 1] = 1.0
    expected = torch.zeros_like(image)
    expected[0, 0, 2:7, 7] = 1
    torch.testing.assert_close(augment(image, settings, uniform), expected, atol=1e-4, rtol=0)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    image, uniform = _faces(count=32)
    whole = augment(image, Augmentation(erasing=0.5), uniform)
    for index in (0, 7, 31):
        alone = augment(image[index : index + 1], Augmentation(erasing=0.5), uniform[index : index + 1])
        torch.testing.assert_close(alone[0], whole[index], atol=1e-6, rtol=0)


def test_one_grey_channel_equals_three() -> None:
    image, uniform = _faces(count=32)
    grey = image[:, :1]
    out = augment(grey, Augmentation(), uniform)
    assert out.shape == grey.shape
    three = augment(grey.expand(-1, 3, -1, -1).contiguous(), Augmentation(), uniform)
    torch.testing.assert_close(out.expand(-1, 3, -1, -1), three, atol=1e-6, rtol=0)


def test_stays_in_range_and_does_not_touch_its_input() -> None:
    image, uniform = _faces(count=64)
    before = image.clone()
    out = augment(image, Augmentation(contrast=1, brightness=1, erasing=1), uniform)
    assert out.min() >= 0 and out.max() <= 1 and out.dtype == torch.float32
    assert torch.equal(image, before)


def test_erasing_covers_the_asked_share() -> None:
    image, uniform = _faces(count=64, side=32)
    uniform[:, 10:] = 0.5  # in the middle, nothing cut off
    settings = Augmentation(flip=0, rotation=0, translate=0, scale=0, contrast=0, brightness=0, erasing=0.5)
    share = (augment(image, settings, uniform) != image).any(1).float().mean((1, 2))
    is_chosen = uniform[:, 7] < 0.5
    assert torch.equal(share > 0, is_chosen)
    expected = 0.02 + 0.18 * uniform[:, 8]
    assert ((share - expected).abs()[is_chosen] < 0.03).all()


def test_random_numbers_must_fit() -> None:
    image, uniform = _faces()
    with pytest.raises(ValueError, match=r"found random numbers \(5, 12\), expected \(6, 12\)"):
        augment(image, Augmentation(), uniform[:5])


@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(erasing=0.5),
        Augmentation(contrast=0, brightness=0, erasing=1),
        Augmentation(flip=0, rotation=0, translate=0, scale=0, erasing=1),
        Augmentation(flip=0, rotation=0, translate=0, scale=0, contrast=0, brightness=0, erasing=1),
        Augmentation(enabled=False),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_and_pieces_give_the_same_faces(
    settings: Augmentation, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (23, channels, 20, 16), generator=generator, dtype=torch.uint8)
    uniform = torch.rand(23, UNIFORM_COLUMNS, generator=generator)
    monkeypatch.setattr(augmentation, "_PIECE", 2**30)
    whole = augment(image.float() / 255, settings, uniform)
    assert torch.equal(augment(image, settings, uniform), whole)
    monkeypatch.setattr(augmentation, "_PIECE", 5 * channels * 20 * 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    before, floats = image.clone(), image.float() / 255
    torch.testing.assert_close(augment(image, settings, uniform), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(augment(floats, settings, uniform), whole, atol=1e-6, rtol=0)
    assert torch.equal(image, before) and torch.equal(floats, before.float() / 255)
