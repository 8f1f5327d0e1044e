from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from datamodules.loading.augmentation import Augmentation, augment
from datamodules.loading.batch_augmentation import augmentation_numbers
from datamodules.loading.face_views import all_views, check_countable, show_views, view_keys

NOTHING: dict[str, Any] = {
    "rotation": 0, "translate": 0, "scale": 0, "contrast": 0, "brightness": 0, "erasing": 0
}  # fmt: skip
IDS = [f"face-{i}" for i in range(5)]
HASHES = [f"{i:016x}" for i in range(5)]
SETTINGS = [
    Augmentation(enabled=False),
    Augmentation(**NOTHING),
    Augmentation(**{**NOTHING, "flip": 0.0}),
    Augmentation(**{**NOTHING, "flip": 1.0}),
    Augmentation(**NOTHING, cached_views=3),
    Augmentation(cached_views=4),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_view_that_training_draws_is_among_them(settings: Augmentation) -> None:
    kept = {key for view in all_views(IDS, settings) for key in view_keys(HASHES, settings, view)}
    drawn: set[bytes] = set()
    for step in range(40):
        numbers, _ = augmentation_numbers(IDS, settings, (7, step))
        drawn |= set(view_keys(HASHES, settings, numbers.numpy()))
    assert drawn == kept


@pytest.mark.parametrize("settings", SETTINGS)
def test_views_of_one_key_are_one_picture(settings: Augmentation) -> None:
    images = torch.randint(0, 256, (5, 1, 12, 12), dtype=torch.uint8)
    pictures = {}
    for view in all_views(IDS, settings):
        shown = show_views(images, settings, torch.from_numpy(view))
        pictures |= dict(zip(view_keys(HASHES, settings, view), shown, strict=True))
    for step in range(10):
        numbers, _ = augmentation_numbers(IDS, settings, (7, step))
        trained = augment(images.float() / 255, settings, numbers)
        for key, picture in zip(view_keys(HASHES, settings, numbers.numpy()), trained, strict=True):
            assert torch.equal(pictures[key], picture.expand(3, -1, -1))


def test_keys_tell_contents_strengths_and_views() -> None:
    numbers = np.zeros((2, 12), dtype=np.float32)
    settings = Augmentation(cached_views=2)
    first, second = view_keys(HASHES[:2], settings, numbers)
    assert first != second
    for other in (Augmentation(cached_views=2, rotation=3), Augmentation(enabled=False), Augmentation(**NOTHING)):
        assert view_keys(HASHES[:1], other, numbers[:1]) != [first]
    assert view_keys(HASHES[:1], settings, numbers[:1] + 0.5) != [first]
    assert view_keys(HASHES[:1], Augmentation(cached_views=9), numbers[:1]) == [first]  # more of them: the same ones


def test_views_without_end_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data.augmentation.cached_views: found null with model.x, expected a number"):
        check_countable(Augmentation(), "model.x")
    with pytest.raises(ValueError, match=r"data.augmentation.uncached_fraction: found 0.5 with model.x, expected 0"):
        check_countable(Augmentation(cached_views=2, uncached_fraction=0.5), "model.x")
    for settings in SETTINGS:
        check_countable(settings, "model.x")
