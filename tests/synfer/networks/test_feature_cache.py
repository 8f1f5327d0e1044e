from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer.networks.feature_cache import FeatureCache, image_keys

IDENTITY = {"generator": "abc", "timestep": 1, "modules": ["mid_block"]}


def images(n: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 4, 4), dtype=np.uint8)


def features(n: int = 6, width: int = 5) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, width)).astype(np.float16)


def filled(root: Path, **settings: Any) -> tuple[FeatureCache, list[bytes]]:
    cache = FeatureCache(root, IDENTITY, 5, **settings)
    keys = image_keys(images())
    cache.add(keys, features())
    cache.flush()
    return cache, keys


def shards(cache: FeatureCache) -> list[Path]:
    return sorted(cache.folder.glob("shard-*"))


def test_keys_tell_content_and_shape() -> None:
    some = images()
    assert len(set(image_keys(some))) == 6
    assert image_keys(some) == image_keys(some[:3]) + image_keys(some[3:])
    assert image_keys(some[..., ::-1])[0] != image_keys(some)[0]
    assert image_keys(some.reshape(6, 3, 2, 8))[0] != image_keys(some)[0]
    with pytest.raises(ValueError, match="found images of float32, expected uint8"):
        image_keys(some.astype(np.float32))


def test_what_is_added_comes_back_in_this_and_the_next_run(tmp_path: Path) -> None:
    cache, keys = filled(tmp_path)
    order = [3, 0, 3, 5]
    for found in (cache, FeatureCache(tmp_path, IDENTITY, 5)):
        assert len(found) == 6 and found.missing(keys) == []
        np.testing.assert_array_equal(found.rows([keys[i] for i in order]), features()[order])
    assert json.loads((cache.folder / "about.json").read_text())["generator"] == "abc"


def test_missing_names_each_new_image_once() -> None:
    cache = FeatureCache("nowhere", IDENTITY, 5)
    a, b, c = image_keys(images(3))
    assert cache.missing([a, b, a, c, b]) == [0, 1, 3]
    with pytest.raises(KeyError):
        cache.rows([a])


def test_other_weights_timestep_or_modules_lie_elsewhere(tmp_path: Path) -> None:
    cache, keys = filled(tmp_path)
    for change in ({"generator": "abd"}, {"timestep": 2}, {"modules": ["mid_block", "up_blocks.0"]}):
        other = FeatureCache(tmp_path, {**IDENTITY, **change}, 5)
        assert other.folder != cache.folder and other.missing(keys) == list(range(6))
    assert FeatureCache(tmp_path, IDENTITY, 6).folder != cache.folder


def test_ranks_find_each_other_s_shards(tmp_path: Path) -> None:
    ranks = [FeatureCache(tmp_path, IDENTITY, 5) for _ in range(2)]
    keys = image_keys(images())
    for rank, own in zip(ranks, (slice(0, 4), slice(2, 6)), strict=True):  # two rows are read by both
        rank.add(keys[own], features()[own])
        rank.flush()
    for rank in ranks:
        rank.refresh()
        np.testing.assert_array_equal(rank.rows(keys), features())
    assert len(shards(ranks[0])) == 2
    assert not list(ranks[0].folder.glob(".*"))  # nothing half-written is left


def test_shards_are_written_when_they_are_full(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, IDENTITY, 5, shard_rows=4)
    keys = image_keys(images())
    cache.add(keys[:3], features()[:3])
    assert not shards(cache) and cache.missing(keys) == [3, 4, 5]
    np.testing.assert_array_equal(cache.rows(keys[:3]), features()[:3])
    cache.add(keys[3:], features()[3:])
    assert len(shards(cache)) == 1 and len(cache) == 6
    cache.flush()
    assert len(shards(cache)) == 1


def damage(path: Path, how: str) -> None:
    data = (path / "features.npy").read_bytes()
    if how == "truncated":
        (path / "features.npy").write_bytes(data[:-20])
    elif how == "flipped":
        (path / "features.npy").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "empty":
        (path / "features.npy").write_bytes(b"")
    elif how == "no keys":
        (path / "keys.npy").unlink()
    elif how == "other width":
        np.save(path / "features.npy", features(width=4))
    else:
        (path / "about.json").write_text("{")


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "no keys", "other width", "no checksum"])
def test_a_damaged_shard_is_named_and_made_anew(how: str, tmp_path: Path) -> None:
    cache, keys = filled(tmp_path)
    (shard,) = shards(cache)
    damage(shard, how)
    with pytest.warns(UserWarning, match=rf"shard .*{shard.name} is damaged"):
        again = FeatureCache(tmp_path, IDENTITY, 5)
    assert again.missing(keys) == list(range(6)) and not shard.exists()
    again.add(keys, features())
    again.flush()
    np.testing.assert_array_equal(FeatureCache(tmp_path, IDENTITY, 5).rows(keys), features())


def test_a_shard_that_cannot_be_read_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, keys = filled(tmp_path)
    load = np.load

    def no_more_descriptors(path: Path, *args: Any, **kwargs: Any) -> np.ndarray:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(np, "load", no_more_descriptors)
    with pytest.raises(OSError, match=rf"shard .*{shards(cache)[0].name} cannot be read .*Too many open files"):
        FeatureCache(tmp_path, IDENTITY, 5)
    monkeypatch.setattr(np, "load", load)
    assert FeatureCache(tmp_path, IDENTITY, 5).missing(keys) == []


def test_many_shards_need_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synfer.networks.feature_cache._OPEN_SHARDS", 2)
    cache = FeatureCache(tmp_path, IDENTITY, 5, shard_rows=1)
    keys = image_keys(images())
    for row, key in enumerate(keys):
        cache.add([key], features()[row : row + 1])
    assert len(shards(cache)) == 6
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else None
    for one in (cache, FeatureCache(tmp_path, IDENTITY, 5)):
        np.testing.assert_array_equal(one.rows(keys * 2), np.concatenate([features(), features()]))
    if before is not None:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4


def test_vectors_of_another_length_are_refused() -> None:
    cache = FeatureCache("nowhere", IDENTITY, 5)
    with pytest.raises(ValueError, match=r"found features \(6, 4\), expected \(6, 5\)"):
        cache.add(image_keys(images()), features(width=4))
