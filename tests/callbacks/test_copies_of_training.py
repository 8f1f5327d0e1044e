from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from callbacks.copies_of_training import near_copies
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.sample_table import ArrayImages
from synfer.faces.face_shape import resize_faces
from synfer.foundation.counter_based_random import keys_of
from tests.datamodules.rows.test_near_duplicates import smooth
from tests.fixtures.tiny_data import TinyReader, tiny_table


def test_a_source_of_another_size_than_the_faces_is_no_other_face() -> None:
    large = np.stack([np.kron(face, np.ones((2, 2), np.uint8)) for face in smooth(12, 1)])
    train = replace(tiny_table(12, "train", 16), images=ArrayImages(large))
    data = ExpressionDataModule(TinyReader(train=train, val=tiny_table(4, "val", 16)), seed=0)
    data.setup("fit")
    images = resize_faces(torch.from_numpy(large)[:, None].float(), 40).round().to(torch.uint8).expand(-1, 3, -1, -1)
    own = np.arange(12)
    own[-2:] = own[:2]  # two are made from another face than the one that they show
    keys = torch.from_numpy(keys_of(train.sample_id[own].tolist()).astype(np.int64))
    found = near_copies(data, {"images": images, "layout_source": keys}, torch.device("cpu"))
    assert found["test/near_copies"] == 1
    assert found["test/near_copies_of_others"] == 2 / 12
