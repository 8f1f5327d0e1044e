from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows import near_copies
from datamodules.rows.near_copies import NearCopies, pixel_correlation
from datamodules.rows.sample_table import ArrayImages
from tests.datamodules.rows.test_near_duplicates import smooth
from tests.fixtures.tiny_data import TinyReader, tiny_table


def as_images(grey: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(grey))[:, None].expand(-1, 3, -1, -1)


def blended(faces: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Each face with a growing share of another one: from a copy to a stranger."""
    share = np.linspace(0, 1, len(faces))[:, None, None]
    return (faces * (1 - share) + others * share).round().astype(np.uint8)


def by_all_pixels(asked: np.ndarray, training: np.ndarray) -> np.ndarray:
    def highest(face: np.ndarray) -> float:
        return float(np.corrcoef(face.ravel(), training.reshape(len(training), -1))[0, 1:].max())

    return np.array([max(highest(face), highest(face[:, ::-1])) > 0.97 for face in asked])


@pytest.mark.parametrize("side", [48, 24])
def test_what_is_found_is_what_comparing_all_pixels_finds(side: int) -> None:
    training = smooth(300, 1)[:, :side, :side]
    asked = np.concatenate([blended(training[:60], smooth(60, 2)[:, :side, :side]), training[60:70, :, ::-1]])
    expected = by_all_pixels(asked, training)
    assert 10 < expected.sum() < 60 and expected[-10:].all()
    assert NearCopies(ArrayImages(training)).find(as_images(asked)).tolist() == expected.tolist()


def test_noise_costs_more_and_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "_ROWS", 7)
    training = np.random.default_rng(0).integers(0, 256, (40, 48, 48), dtype=np.uint8)
    asked = blended(training[:20], training[20:])
    expected = by_all_pixels(asked, training)
    assert 4 < expected.sum() < 16
    assert NearCopies(ArrayImages(training)).find(as_images(asked)).tolist() == expected.tolist()


def test_colour_size_and_constant_faces() -> None:
    small = smooth(4, 3)
    colour = np.repeat(small[..., None], 3, axis=3)
    large = np.stack([np.kron(face, np.ones((2, 2), np.uint8)) for face in small])
    search = NearCopies(ArrayImages(np.concatenate([small[:2], np.zeros((1, 48, 48), np.uint8)])))
    assert search.find(as_images(large)).tolist() == [True, True, False, False]
    assert search.find(torch.from_numpy(colour).permute(0, 3, 1, 2)).tolist() == [True, True, False, False]
    assert not search.find(torch.zeros(2, 3, 48, 48, dtype=torch.uint8)).any()
    assert search.find(torch.zeros(0, 3, 48, 48, dtype=torch.uint8)).tolist() == []


def test_correlation_with_one_face() -> None:
    faces, others = smooth(5, 4), smooth(5, 5)
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(faces, others, strict=True)]
    torch.testing.assert_close(pixel_correlation(as_images(faces), as_images(others)), torch.tensor(expected).float())
    assert pixel_correlation(as_images(faces), as_images(255 - faces)).max() < -0.99


def test_level_of_held_out_faces_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    training = smooth(10, 6)
    held_out = ArrayImages(np.concatenate([training[:2], smooth(6, 7)]))
    search = NearCopies(ArrayImages(training), held_out)
    assert search.held_out_share() == 0.25
    monkeypatch.setattr(NearCopies, "find", None)
    assert search.held_out_share() == 0.25
    assert np.isnan(NearCopies(ArrayImages(training)).held_out_share())


def test_of_very_many_faces_some_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "MOST_FACES", 4)
    training = smooth(10, 8)
    search = NearCopies(ArrayImages(training))
    assert search.rows.tolist() == [0, 3, 6, 9] and search.of == 10
    assert np.flatnonzero(search.find(as_images(training)).numpy()).tolist() == [0, 3, 6, 9]


def test_all_training_faces_are_searched_whatever_a_run_leaves_out() -> None:
    tables = {split: tiny_table(20, split, 16) for split in ("train", "val")}
    datamodule = ExpressionDataModule(TinyReader(**tables), training_fraction=0.5, seed=0)
    search = datamodule.near_copies()
    assert datamodule.num_real_rows < 20 and search.of == 20 and search.held_out_share() == 0
    assert datamodule.near_copies() is search
    assert search.find(tables["train"].images.batch(np.arange(20))).all()


def test_the_face_that_another_was_made_from_does_not_count() -> None:
    faces = smooth(6, 4)
    twin = faces[1].copy()
    twin[0, 0] ^= 1  # another picture, by one pixel
    search = NearCopies(ArrayImages(np.concatenate([faces[:3], faces[:1], twin[None]])))
    made, sources = as_images(faces[[0, 1, 2, 3]]), as_images(faces[[0, 1, 0, 0]])
    assert search.find(made).tolist() == [True, True, True, False]
    # The source of the first is there twice and counts neither time; that of the second has a twin; the third is the
    # copy of a face that it was not made from.
    assert search.find(made, sources).tolist() == [False, True, True, False]
    assert search.find(made[:, :1], sources[:, :1]).tolist() == [False, True, True, False]
