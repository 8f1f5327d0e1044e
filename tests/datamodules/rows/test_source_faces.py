from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.source_faces import TrainingSources, training_sources
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table


def test_rows_pictures_and_names() -> None:
    table = tiny_table(21)
    sources = TrainingSources(table, [tiny_table(14, "val")], "source face")
    rows = sources.rows_of("sad")
    assert len(sources) == 21 and sources.label_space == BASIC7
    assert rows.tolist() == np.flatnonzero(table.label == BASIC7.index("sad")).tolist()
    assert sources.sample_ids(rows) == table.sample_id[rows].tolist()
    assert np.array_equal(sources.images(rows).numpy(), table.images.batch(rows).numpy())
    assert not len(sources.rows_of("contempt"))


def test_an_evaluation_image_is_no_source() -> None:
    training, held_out = tiny_table(21), tiny_table(14, "val")
    twin = replace(held_out, content_hash=np.concatenate([training.content_hash[:1], held_out.content_hash[1:]]))
    with pytest.raises(
        ValueError, match=r"source face .*: found val image '.*' \(1 val images in all\), expected trai"
    ):
        TrainingSources(training, [twin], "source face")
    with pytest.raises(ValueError, match="source face: found the test split, expected training images only"):
        TrainingSources(tiny_table(7, "test"), [], "source face")


def test_the_fingerprint_is_of_pixels_labels_and_order() -> None:
    table = tiny_table(21)
    whole = TrainingSources(table, [], "").fingerprint()
    assert len(whole) == 16 and whole == TrainingSources(tiny_table(21), [], "").fingerprint()
    turned = table.select(np.arange(21)[::-1].copy())
    relabelled = replace(table, label=np.roll(table.label, 1))
    others = [TrainingSources(changed, [], "").fingerprint() for changed in (turned, relabelled)]
    assert len({whole, *others}) == 3


def test_the_rows_of_a_run_whatever_it_has_read() -> None:
    tables = {split: tiny_table(28, split) for split in ("train", "val", "test")}
    data = ExpressionDataModule(TinyReader(**tables), training_fraction=0.5, seed=1)
    sources = training_sources(data, "source face")
    assert data.train_table is not None and len(sources) == len(data.train_table) == 14
    leaking = {**tables, "test": replace(tables["test"], content_hash=tables["train"].content_hash)}
    with pytest.raises(ValueError, match=r"source face .*found test image"):
        training_sources(ExpressionDataModule(TinyReader(**leaking), seed=1), "source face")
