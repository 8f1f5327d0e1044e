"""Two splits out of training rows: never a row in both, read once, and nothing where validation rows are there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datamodules.readers.held_out import HeldOutReader
from datamodules.readers.reader import Split
from datamodules.rows.held_out_share import ValidationShare
from datamodules.rows.provenance import split_manifest
from tests.fixtures.tiny_data import TinyReader, tiny_table


class NoValidation(TinyReader):
    def has_split(self, split: Split) -> bool:
        return split in self.tables


def test_both_parts_of_one_reading() -> None:
    inner = NoValidation(train=tiny_table(70), test=tiny_table(14, "test"))
    reader = HeldOutReader(inner, ValidationShare(0.2))
    train, val = reader.read("train"), reader.read("val")
    assert inner.reads == ["train"]
    assert (len(train), len(val), train.split, val.split) == (56, 14, "train", "val")
    assert not set(train.content_hash) & set(val.content_hash)
    assert {len(split) for split in (reader.read("test"), reader.read("val"))} == {14}
    assert set(reader.read("val").sample_id) == set(val.sample_id)  # read again, not kept
    assert split_manifest(val)["held_out"] == {"fraction": 0.2, "seed": 0, "groups": None, "training_rows": 70}
    assert "held_out" not in split_manifest(replace(val, held_out=None))


def test_a_split_of_its_own_stays() -> None:
    inner = NoValidation(train=tiny_table(70), val=tiny_table(21, "val"))
    reader = HeldOutReader(inner, ValidationShare(0.2))
    assert not reader.holds_out
    assert (len(reader.read("train")), len(reader.read("val"))) == (70, 21)


def test_what_is_behind_it_shows() -> None:
    inner = NoValidation(train=tiny_table(70))
    reader = HeldOutReader(inner, ValidationShare(0.2))
    reader.fit_size(12)
    assert inner.wanted_size == 12 and reader.source() == inner.source() and reader.has_split("val")
    with pytest.raises(KeyError):
        reader.read("test")
