from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synfer.pictures.face_comparison import first_faces, save_expression_grid, save_face_comparison

NAMES = ("happy", "sad")
LABEL = torch.tensor([1, 2, 1, 2, 1, 2, 1, 2])
FACES = torch.arange(8, dtype=torch.uint8).mul(16)[:, None, None, None].expand(8, 3, 96, 96)


def test_a_grid_has_a_row_for_each_expression(tmp_path: Path) -> None:
    save_expression_grid(FACES, LABEL, (1, 2), NAMES, tmp_path / "grid.png")
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    assert picture.shape[:2] == (2 * 96, 110 + 4 * 96)
    assert picture[5, 110 + 5 :: 96, 0].tolist() == [0, 32, 64, 96]
    save_expression_grid(FACES[:1], LABEL[:1], (1, 2), NAMES, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_set_without_a_face_of_an_expression_leaves_its_place_empty(tmp_path: Path) -> None:
    asked = []

    def probability(faces: torch.Tensor, name: str) -> list[float]:
        asked.append((len(faces), name))
        return [0.5] * len(faces)

    sets = [("real", [FACES[:0], FACES[:2]]), ("made", first_faces(FACES, LABEL, (1, 2)))]
    save_face_comparison(sets, NAMES, probability, tmp_path / "comparison.png")
    assert asked == [(2, "sad"), (3, "happy"), (3, "sad")]
    assert (tmp_path / "comparison.png").is_file()
