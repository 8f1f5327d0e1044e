"""Augmentation of whole batches: the numbers of a sample, and what is done with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datamodules.loading.augmentation import Augmentation, augment, is_flipped
from datamodules.loading.batch_augmentation import augment_batch, augmentation_numbers
from synfer.faces.action_units import mirrored_order

IDS = [f"train-{row}" for row in range(40)]
FLIP_ONLY = Augmentation(flip=0.5, rotation=0, translate=0, scale=0, contrast=0, brightness=0, erasing=0)


def batch(channels: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(40, channels, 8, 8, generator=generator)
    return {"image": image, "au": torch.eye(41)[:40], "sample_id": IDS}


def test_numbers_follow_the_sample_wherever_it_stands() -> None:
    numbers, uncached = augmentation_numbers(IDS, Augmentation(), (1, 2))
    again, _ = augmentation_numbers(IDS[::-1][:7], Augmentation(), (1, 2))
    assert numbers.shape == (40, 12) and numbers.dtype == torch.float32 and uncached.all()
    assert torch.equal(again, numbers.flip(0)[:7])
    assert not torch.equal(augmentation_numbers(IDS, Augmentation(), (1, 3))[0], numbers)


def test_cached_views_do_not_depend_on_the_stream() -> None:
    settings = Augmentation(cached_views=2, uncached_fraction=0.3)
    seen: dict[str, set[bytes]] = {}
    share = []
    for step in range(50):
        numbers, uncached = augmentation_numbers(IDS, settings, (7, step))
        share.append(uncached.float().mean())
        for name, row, is_new in zip(IDS, numbers, uncached, strict=True):
            if not is_new:
                seen.setdefault(name, set()).add(row.numpy().tobytes())
    assert all(len(views) == 2 for views in seen.values()) and len(seen) == 40
    assert 0.27 < torch.stack(share).mean() < 0.33


@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_one_sided_action_units_are_flipped_together(channels: int) -> None:
    given, changed = batch(channels), batch(channels)
    order = mirrored_order()
    augment_batch(changed, FLIP_ONLY, order, seed=1, epoch=0, step=3)  # type: ignore[arg-type]
    moved = (changed["au"] != given["au"]).any(1)
    mirrored = given["au"][:, order]
    flipped = torch.tensor([torch.equal(a, b) for a, b in zip(changed["au"], mirrored, strict=True)])
    assert moved.sum() > 0 and (moved <= flipped).all() and changed["image"].shape == given["image"].shape
    off = (changed["image"] - given["image"]).abs().amax((1, 2, 3)) > 1e-3
    assert 8 < off.sum() < 32 and (moved <= off).all()
    torch.testing.assert_close(changed["image"][off], given["image"][off].flip(-1), atol=1e-5, rtol=0)
    assert "is_uncached" not in changed


def test_it_is_augment_with_the_numbers_of_the_run() -> None:
    settings, changed = Augmentation(cached_views=3, uncached_fraction=0.5), batch(3)
    augment_batch(changed, settings, mirrored_order(), seed=5, epoch=1, step=2)  # type: ignore[arg-type]
    numbers, uncached = augmentation_numbers(IDS, settings, (5, 0xA06, 1, 2))
    assert torch.equal(changed["image"], augment(batch(3)["image"], settings, numbers))
    assert torch.equal(changed["is_uncached"], uncached)
    assert is_flipped(settings, numbers).any()
