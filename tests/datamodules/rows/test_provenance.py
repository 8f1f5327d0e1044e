"""Twins are found by content, whatever the file format."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from datamodules.rows.provenance import check_sources, content_hash, find_duplicates, split_manifest
from datamodules.rows.sample_table import ArrayImages, SampleTable, one_hot

SPACE = ("neutral", "happy")


def table(split: str, hashes: list[str], labels: list[int]) -> SampleTable:
    label = np.array(labels, dtype=np.int64)
    return SampleTable(
        images=ArrayImages(np.zeros((len(labels), 4, 4), np.uint8)),
        label=label,
        soft_label=one_hot(label, 2),
        sample_id=np.array([f"{split}-{index}" for index in range(len(labels))]),
        content_hash=np.array(hashes),
        label_space=SPACE,
        split=split,
    )


def test_hash_is_sha256_over_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    assert content_hash(image) == hashlib.sha256(image.tobytes()).hexdigest()[:16]
    assert content_hash(image[:, ::-1]) == hashlib.sha256(image[:, ::-1].tobytes()).hexdigest()[:16]


def test_grey_and_rgb_duplicates_match_and_colour_differs() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    rgb = np.repeat(image[..., None], 3, axis=-1)
    assert content_hash(rgb) == content_hash(image)
    rgb[3, 3, 2] ^= 1
    assert content_hash(rgb) != content_hash(image)


def test_hash_refuses_floats() -> None:
    with pytest.raises(ValueError, match=r"image float64 \(8, 8\): expected uint8"):
        content_hash(np.zeros((8, 8)))


def test_find_duplicates_counts_and_names_rows_to_drop() -> None:
    #                        0    1    2    3    4    5
    train = table("train", ["a", "b", "a", "c", "b", "d"], [0, 0, 1, 0, 0, 1])
    val = table("val", ["b", "x", "b"], [0, 0, 1])
    test = table("test", ["d", "y"], [1, 1])
    report = find_duplicates(train, [val, test])
    assert (report.groups, report.within_train, report.conflicting_groups) == (2, 2, 1)
    assert report.evaluation_duplicates == {"val": 2, "test": 1}
    assert report.training_duplicates == {"val": 2, "test": 1}
    assert report.rows_to_drop.tolist() == [1, 4, 5]
    assert "2 val rows have a duplicate in training (2 training rows)" in str(report) and "\n" not in str(report)


def test_find_duplicates_without_evaluation() -> None:
    report = find_duplicates(table("train", ["a", "b"], [0, 1]), [])
    assert report.groups == 0 and len(report.rows_to_drop) == 0


def test_sources_from_evaluation_are_refused() -> None:
    val = table("val", ["b", "x"], [0, 0])
    check_sources(["a", "c"], [val], "layout source")
    check_sources([], [val], "layout source")
    with pytest.raises(ValueError, match="layout source: found val image 'val-1'"):
        check_sources(["a", "x"], [val], "layout source")


def test_manifest_depends_on_pixels_and_labels_and_not_on_the_order() -> None:
    manifest = split_manifest(table("train", ["a", "b", "c"], [0, 1, 0]))
    assert manifest == {"rows": 3, "sha256": hashlib.sha256(b"a neutral\nb happy\nc neutral\n").hexdigest()[:16]}
    assert split_manifest(table("val", ["c", "a", "b"], [0, 0, 1])) == manifest
    for hashes, labels in ((["a", "b", "d"], [0, 1, 0]), (["a", "b", "c"], [1, 1, 0]), (["a", "b"], [0, 1])):
        assert split_manifest(table("train", hashes, labels))["sha256"] != manifest["sha256"]
