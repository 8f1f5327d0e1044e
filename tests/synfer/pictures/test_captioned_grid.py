from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synfer.pictures.captioned_grid import FaceColumns, save_captioned_grid


def test_faces_stand_in_their_rows_with_room_for_text(tmp_path: Path) -> None:
    red, blue = torch.zeros(2, 3, 48, 48, dtype=torch.uint8), torch.zeros(1, 3, 48, 48, dtype=torch.uint8)
    red[:, 0], blue[:, 2] = 255, 255
    groups = [
        FaceColumns("real", [red, red[:0]], [["90%", "80%"], []]),
        FaceColumns("unguided", [blue, blue], [["1%"], ["2%"]]),
    ]
    save_captioned_grid(groups, ["happy", "sad"], tmp_path / "new" / "grid.png")
    sheet = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    assert sheet.shape == (26 + 2 * (96 + 18), 110 + 3 * 96 + 14, 3)
    assert (sheet[26 + 48, 110 + 96 + 48] == [255, 0, 0]).all() and (sheet[26 + 48, -48] == [0, 0, 255]).all()
    assert (sheet[26 + 114 + 10, 110 + 10] == 255).all()  # no real face in the second row
    caption = sheet[26 + 96 : 26 + 114, 110 : 110 + 96]
    assert (caption < 128).any()


def test_groups_of_other_rows_are_refused(tmp_path: Path) -> None:
    face = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="group 'real': 1 rows of faces, expected 2"):
        save_captioned_grid([FaceColumns("real", [face], [["x"]])], ["happy", "sad"], tmp_path / "grid.png")
