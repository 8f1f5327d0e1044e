from __future__ import annotations

import numpy as np
import pytest

from datamodules.readers import OtherSplitReader
from tests.datamodules.tiny_data import TinyReader, tiny_table


def test_splits_are_read_under_other_names() -> None:
    own = TinyReader(train=tiny_table(9), val=tiny_table(5, "val"))
    reader = OtherSplitReader(own, {"val": "train"})
    assert reader.label_space == own.label_space
    np.testing.assert_array_equal(reader.read("val").sample_id, own.read("train").sample_id)
    np.testing.assert_array_equal(reader.read("train").sample_id, own.read("train").sample_id)


def test_unknown_splits_are_refused() -> None:
    for splits in ({"val": "training"}, {"valid": "train"}):
        with pytest.raises(ValueError, match=r"splits: found '(training|valid)', expected train, val or test"):
            OtherSplitReader(TinyReader(train=tiny_table(9)), splits)
