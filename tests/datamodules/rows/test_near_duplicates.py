from __future__ import annotations

import numpy as np
import torch

from datamodules.rows.near_duplicates import find_near_duplicates, thumbnails
from datamodules.rows.sample_table import ArrayImages


def smooth(count: int, seed: int) -> np.ndarray:
    """Pictures with structure that survives a shift by one pixel, uint8 (count, 48, 48)."""
    coarse = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(coarse, (48, 48), mode="bicubic").clamp(0, 1) * 255).byte()[:, 0].numpy()


def test_copies_of_one_photograph_are_found_and_others_are_not() -> None:
    others = smooth(6, 1)
    copies = [
        np.roll(others[0], 1, axis=1),  # another crop
        others[1][:, ::-1],  # mirrored
        (others[2] * 0.5 + 60).astype(np.uint8),  # darker, with less contrast
        torch.nn.functional.avg_pool2d(torch.tensor(others[3])[None].float(), 3, 1, 1)[0].byte().numpy(),  # blurred
    ]
    strangers = smooth(5, 2)
    images = np.stack([*strangers[:2], *copies, *strangers[2:], np.full((48, 48), 7, np.uint8)])
    of_images, of_others = find_near_duplicates(thumbnails(ArrayImages(images)), thumbnails(ArrayImages(others)), 0.95)
    assert of_images.tolist() == [False] * 2 + [True] * 4 + [False] * 4
    assert of_others.tolist() == [True] * 4 + [False] * 2


def test_more_images_than_are_read_at_a_time() -> None:
    images, others = smooth(1030, 3), smooth(520, 4)
    others[519] = images[1029]
    of_images, of_others = find_near_duplicates(thumbnails(ArrayImages(images)), thumbnails(ArrayImages(others)), 0.999)
    assert np.flatnonzero(of_images).tolist() == [1029] and np.flatnonzero(of_others).tolist() == [519]


def test_no_images() -> None:
    none, some = thumbnails(ArrayImages(np.zeros((0, 48, 48), np.uint8))), thumbnails(ArrayImages(smooth(3, 5)))
    assert find_near_duplicates(none, some, 0.9)[1].tolist() == [False] * 3
    assert find_near_duplicates(some, none, 0.9)[0].tolist() == [False] * 3
