"""Tests of datamodules.readers.drawn."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.readers.drawn import DEFAULT_COUNT, DrawnReader
from datamodules.readers.reader import Reader
from synfer.faces.action_units import ACTION_UNITS, FACS_PROTOTYPES, action_unit_indices, mirrored_order
from synfer.faces.affect import PUBLISHED_POSITIONS


def drawn(n: int = 64, **settings: object) -> DrawnReader:
    return DrawnReader(count={"train": n, "val": 24, "test": 24}, image_size=32, **settings)  # type: ignore[arg-type]


def test_a_table_of_colour_faces() -> None:
    reader = drawn()
    assert isinstance(reader, Reader)
    table = reader.read("train")
    assert len(table) == 64
    assert table.images.batch(np.array([0, 5])).shape == (2, 3, 32, 32)
    assert set(table.class_counts().values()) == {8}
    assert table.au is not None
    assert table.au.dtype == np.float32
    assert len(set(table.sample_id)) == 64
    assert table.report.read == 64
    assert not table.is_synthetic


def test_defaults() -> None:
    assert DrawnReader().count == DEFAULT_COUNT
    assert DrawnReader(count={"train": 7}).count == {**DEFAULT_COUNT, "train": 7}


def test_reading_twice_gives_the_same_and_more_rows_keep_the_first() -> None:
    few, many = drawn(20, imbalance=5.0, label_noise=0.3).read("train"), drawn(40, imbalance=5.0, label_noise=0.3)
    again = many.read("train").select(np.arange(20))
    assert list(few.content_hash) == list(again.content_hash)
    np.testing.assert_array_equal(few.label, again.label)
    np.testing.assert_array_equal(few.au, again.au)
    assert list(drawn(20, seed=2).read("train").content_hash) != list(few.content_hash)


def test_splits_share_no_face() -> None:
    reader = drawn()
    hashes = [set(reader.read(split).content_hash) for split in ("train", "val", "test")]  # type: ignore[arg-type]
    assert [len(each) for each in hashes] == [64, 24, 24]
    assert len(set.union(*hashes)) == 112


def test_action_units_are_those_of_the_class() -> None:
    table = drawn(160).read("train")
    assert table.au is not None
    smile = table.au[:, action_unit_indices(["AU12"])[0]]
    happy = table.label == table.label_space.index("happy")
    assert smile[happy].min() > 0.1
    for name, prototype in FACS_PROTOTYPES.items():
        if name == "contempt":
            continue
        rows = table.au[table.label == table.label_space.index(name)]
        assert (rows[:, action_unit_indices(prototype.core)] > 0).all()
    contempt = table.au[table.label == table.label_space.index("contempt")]
    left, right = action_unit_indices(["AUL14", "AUR14"])
    assert ((contempt[:, left] > 0) ^ (contempt[:, right] > 0)).all(), "one side, either one"
    assert (contempt[:, left] > 0).any()
    assert (contempt[:, right] > 0).any()


def test_mirror_swaps_the_sides() -> None:
    vectors = np.arange(41, dtype=np.float32)[None]
    mirrored = vectors[:, mirrored_order()]
    left, right, both = action_unit_indices(["AUL12", "AUR12", "AU12"])
    assert mirrored[0, left] == right
    assert mirrored[0, right] == left
    assert mirrored[0, both] == both
    np.testing.assert_array_equal(mirrored[:, mirrored_order()], vectors)


def test_ratings_follow_the_published_positions() -> None:
    faces = {"count": {"train": 16, "val": 8, "test": 8}, "image_size": 32}
    table = DrawnReader(**faces, affect=True).read("train")
    assert DrawnReader(**faces).read("train").affect is None and table.affect is not None
    for row, code in enumerate(table.label):
        name, rating = table.label_space[code], table.affect[row]
        if name == "contempt":
            assert np.isnan(rating).all()
        elif name == "neutral":
            assert (rating == 0).all()
        else:
            ratio = rating / PUBLISHED_POSITIONS[name]
            assert ratio[0] == pytest.approx(ratio[1], abs=1e-5) and 0.55 <= ratio[0] <= 1


def test_label_noise_replaces_training_labels_only() -> None:
    reader, quiet = drawn(800, label_noise=0.25), drawn(800)
    table = reader.read("train")
    clean = reader.clean_labels("train")
    wrong = table.label != clean
    assert 0.20 < wrong.mean() < 0.30
    np.testing.assert_array_equal(table.soft_label.argmax(axis=1), table.label)
    assert len(set(table.label[wrong])) == 8
    np.testing.assert_array_equal(clean, quiet.read("train").label)
    assert list(table.content_hash) == list(quiet.read("train").content_hash), "the faces stay the same"
    np.testing.assert_array_equal(reader.read("val").label, reader.clean_labels("val"))
    assert (drawn(50, label_noise=1.0).read("train").label != drawn(50).clean_labels("train")).all()


def test_imbalance_is_geometric_in_training_and_absent_elsewhere() -> None:
    reader = DrawnReader(count={"train": 4000}, imbalance=10.0)
    counts = np.bincount(reader.clean_labels("train"), minlength=8)
    assert counts.sum() == 4000
    assert counts[0] / counts[-1] == pytest.approx(10, rel=0.02)
    np.testing.assert_allclose(counts[:-1] / counts[1:], 10 ** (1 / 7), rtol=0.02)
    assert set(np.bincount(reader.clean_labels("val"))) == {100}


def test_label_space_and_grey() -> None:
    assert drawn(label_space="basic7").read("val").label_space[-1] == "anger"
    assert drawn(label_space=["happiness", "sad"]).label_space == ("happy", "sad")
    table = drawn(8, grey=True).read("train")
    image = table.images.batch(np.arange(8))
    assert image.shape == (8, 1, 32, 32)
    colour = drawn(8).read("train")
    assert colour.images.batch(np.arange(8)).shape == (8, 3, 32, 32)
    assert list(colour.sample_id) == list(table.sample_id)
    np.testing.assert_array_equal(colour.au, table.au)
    assert len(ACTION_UNITS) == table.au.shape[1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variety": 1.1}, "data.reader.init_args.variety: found 1.1, expected a number in"),
        ({"free_units": 1.5}, "data.reader.init_args.free_units: found 1.5, expected a share in"),
        ({"variety": 0.0}, "data.reader.init_args.variety: found 0.0"),
        ({"zoom": 0.9}, "data.reader.init_args.zoom: found 0.9, expected 1…2"),
        ({"label_noise": 1.5}, "data.reader.init_args.label_noise: found 1.5"),
        ({"label_noise": float("nan")}, "data.reader.init_args.label_noise"),
        ({"imbalance": 0.5}, "data.reader.init_args.imbalance: found 0.5"),
        ({"image_size": 16}, "data.reader.init_args.image_size: found 16"),
        ({"count": {"training": 5}}, "data.reader.init_args.count: found split 'training'"),
        ({"count": {"val": 0}}, "data.reader.init_args.count.val: found 0"),
        ({"label_space": "basic9"}, "data.reader.init_args.label_space: unknown label space 'basic9'"),
    ],
)
def test_errors_name_the_config_key(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DrawnReader(**settings)


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match="found split 'dev', expected train, val, test"):
        drawn().read("dev")  # type: ignore[arg-type]


def test_less_variety_leaves_the_expression() -> None:
    def share_of_the_expression(variety: float) -> float:
        table = DrawnReader({"train": 350}, label_space="basic7", zoom=1.5, variety=variety).read("train")
        pixels = table.images.batch(np.arange(350)).flatten(1).double().numpy()
        means = np.stack([pixels[table.label == code].mean(0) for code in range(7)])
        return float(means.var(0).sum() / pixels.var(0).sum())

    shares = [share_of_the_expression(variety) for variety in (1.0, 0.5, 0.1)]
    assert shares[0] < 0.6 * shares[1] < 0.3 * shares[2]


def test_free_units_are_of_no_expression() -> None:
    plain, free = (
        DrawnReader({"train": 700}, image_size=32, label_space="basic7", free_units=share).read("train")
        for share in (0, 0.5)
    )
    assert plain.au is not None and free.au is not None
    added = free.au > plain.au
    assert (free.au >= plain.au).all() and added.sum(1).max() <= 3 and free.au.max() <= 1
    assert 0.4 < added.any(1).mean() < 0.55 and added.any(0).all()  # one may already act as much
    same = ~added.any(1)
    assert list(free.content_hash[same]) == list(plain.content_hash[same])
    first = DrawnReader({"train": 50}, image_size=32, label_space="basic7", free_units=0.5).read("train")
    assert first.au is not None
    np.testing.assert_array_equal(first.au, free.au[:50])
    neutral = free.label == 0
    assert added[neutral].any(1).mean() == pytest.approx(added[~neutral].any(1).mean(), abs=0.15)


def test_splits_share_no_face_at_little_variety() -> None:
    reader = DrawnReader({"train": 140, "val": 70, "test": 70}, label_space="basic7", zoom=1.5, variety=0.1)
    hashes = np.concatenate([reader.read(split).content_hash for split in ("train", "val", "test")])
    assert len(set(hashes.tolist())) == len(hashes)
