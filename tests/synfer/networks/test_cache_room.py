"""Caches of a folder stay within their bound, whoever fills them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer.networks.cache_room import CacheRoom
from synfer.networks.feature_cache import FeatureCache

WIDTH = 500
"""Numbers of a vector: 1,000 bytes."""


def filled(root: Path, name: str, rows: int, most_bytes: int = 100_000) -> FeatureCache:
    cache = FeatureCache(root, {"name": name}, WIDTH, room=CacheRoom(root, most_bytes))
    cache.add(keys(rows), np.ones((rows, WIDTH)))
    cache.flush()
    return cache


def keys(rows: int) -> list[bytes]:
    return [i.to_bytes(16, "little") for i in range(rows)]


def closed(cache: FeatureCache) -> FeatureCache:
    assert cache._room is not None
    cache._room.close()
    return cache


def test_a_full_cache_takes_no_more_and_keeps_what_it_has(tmp_path: Path) -> None:
    cache = filled(tmp_path, "a", 10, most_bytes=15_000)
    assert not cache.is_full and CacheRoom(tmp_path, 0).used_bytes() > 10_000
    more = [key + b"x" for key in (k[:15] for k in keys(10))]
    cache.add(more, np.ones((10, WIDTH)))
    cache.flush()
    assert cache.is_full and cache.missing(more) == list(range(10)) and not cache.missing(keys(10))
    assert CacheRoom(tmp_path, 0).used_bytes() <= 15_000


def test_caches_that_nobody_uses_make_room_the_longest_unused_first(tmp_path: Path) -> None:
    old, newer = (closed(filled(tmp_path, name, 10)).folder for name in ("old", "newer"))
    os.utime(old / "in_use.lock", (1, 1))
    third = filled(tmp_path, "third", 10, most_bytes=25_000)
    assert not old.exists() and newer.exists() and not third.is_full


def test_a_cache_that_another_process_uses_stays(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})
from pathlib import Path
from tests.synfer.networks.test_cache_room import filled
cache = filled(Path({str(tmp_path)!r}), "theirs", 10)
print(cache.folder, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        ours = filled(tmp_path, "ours", 10, most_bytes=15_000)
        assert ours.is_full and list(theirs.glob("shard-*"))
        other.communicate()
    ours.add(keys(10), np.ones((10, WIDTH)))
    ours.flush()
    assert not ours.is_full and not theirs.exists()  # its lock went with its process


def test_without_locks_the_cache_cannot_be_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(OSError, match="file system without locks"):
        filled(tmp_path, "a", 1)
