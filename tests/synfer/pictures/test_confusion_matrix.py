from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from synfer.pictures.confusion_matrix import save_confusion_matrix


def test_picture_is_written_whole_into_a_new_folder(tmp_path: Path) -> None:
    confusion = torch.tensor([[5, 1], [0, 0]])
    path = save_confusion_matrix(confusion, ("happy", "sad"), tmp_path / "samples" / "confusion_val.png", "val")
    with Image.open(path) as picture:
        picture.load()
        assert min(picture.size) > 200
    assert [p.name for p in path.parent.iterdir()] == ["confusion_val.png"]
