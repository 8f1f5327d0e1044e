"""Features of images on disk, found by the images' content: computed once, reused by every epoch, rank and run.

A cache is a folder named by what its features depend on besides the image (weights, timestep, modules, …), so other
weights look into another folder and nothing can be stale. Inside are shards, each a folder of two ``.npy`` files that
was written under another name and then renamed: a shard is there as a whole or not at all. Every rank writes shards of
its own and reads everybody's.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from synfer.foundation.on_rank_zero import warn_on_rank_zero
from synfer.networks.cache_room import CacheRoom

_KEYS, _FEATURES, _ABOUT = "keys.npy", "features.npy", "about.json"
_FORMAT = 1
_OPEN_SHARDS = 256
_KEY_BYTES = 16


def image_keys(image: np.ndarray) -> list[bytes]:
    """Returns a 16-byte key of the content of each image: uint8 (n, …). A mirrored image has a key of its own."""
    if image.dtype != np.uint8:
        raise ValueError(f"feature cache: found images of {image.dtype}, expected uint8")
    # Features of pictures that are no squares were once those of squashed faces: they have keys of their own.
    cut = " cut" if image.shape[-2:-1] != image.shape[-1:] else ""
    shape = (repr(image.shape[1:]) + cut).encode()
    return [
        hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=_KEY_BYTES, key=shape[:64]).digest()
        for row in image
    ]


class FeatureCache:
    """Vectors by key, float16 unless said otherwise, in memory-mapped shards.

    Args:
        root: folder that holds caches.
        identity: everything that the features depend on besides the image, as plain types; it names the folder.
        width: length D of a vector.
        shard_rows: rows gathered in memory before they become a shard; None = about 64 MB of them.
        number_format: numpy's name of what they are stored as.
        room: bound on it and on other caches of the folder; None = as many as are added.

    Attributes:
        folder: where this cache lies.
        is_full: whether new features were thrown away for want of room.

    Raises:
        OSError: with a bound, a folder that cannot be written to.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        identity: Mapping[str, Any],
        width: int,
        shard_rows: int | None = None,
        number_format: str = "float16",
        room: CacheRoom | None = None,
    ) -> None:
        about = {"format": _FORMAT, "width": width, **identity}
        if number_format != "float16":
            about["number_format"] = number_format
        text = json.dumps(about, sort_keys=True)
        self.folder = Path(root) / f"features-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.width = width
        self.dtype = np.dtype(number_format)
        self.row_bytes = width * self.dtype.itemsize
        self.shard_rows = shard_rows or max(1, 64 * 2**20 // self.row_bytes)
        self._shards: set[str] = set()
        self._place: dict[bytes, tuple[str, int]] = {}
        # Each open shard holds a file descriptor, of which a process may often have no more than 1,024.
        self._features = lru_cache(maxsize=_OPEN_SHARDS)(self._open_features)
        self._waiting: dict[bytes, np.ndarray] = {}
        self._about = json.dumps(about, sort_keys=True, indent=2) + "\n"
        self._room, self.is_full = room, False
        if room is not None:
            room.enter(self.folder)
        self.refresh()

    @staticmethod
    def free_bytes(root: str | os.PathLike[str]) -> int:
        """Returns what is free on the disk of a folder that need not be there yet."""
        folder = Path(root).absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def __len__(self) -> int:
        return len(self._place) + len(self._waiting)

    def refresh(self) -> None:
        """Takes in shards that other ranks have written since; a damaged one is named, removed and made anew.

        Raises:
            OSError: a shard cannot be read now, which says nothing about what is in it: it stays.
        """
        for path in sorted(self.folder.glob("shard-*")) if self.folder.is_dir() else []:
            if path.name in self._shards:
                continue
            try:
                keys = _checked_keys(path, self.width, self.dtype)
            except NotADirectoryError:
                self._shards.add(path.name)  # said once
                warn_on_rank_zero(f"feature cache: {path} is a file and no shard of ours; it is left alone")
            except FileNotFoundError:
                if not path.exists():  # another rank has just removed it
                    continue
                self._discard(path, "a part is missing")
            except (ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
                self._discard(path, " ".join(str(error).split())[:120])
            except OSError as error:
                raise OSError(f"feature cache: shard {path} cannot be read ({error}); it is left as it is") from error
            else:
                self._shards.add(path.name)
                for row, key in enumerate(keys):
                    self._place.setdefault(key.tobytes(), (path.name, row))

    def _open_features(self, shard: str) -> np.ndarray:
        return np.load(self.folder / shard / _FEATURES, mmap_mode="r")

    def _discard(self, path: Path, reason: str) -> None:
        warn_on_rank_zero(f"feature cache: shard {path} is damaged ({reason}); its features are computed again")
        shutil.rmtree(path, ignore_errors=True)

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Returns the positions of keys without features, each key once."""
        first = {key: index for index, key in reversed(list(enumerate(keys)))}
        return sorted(i for key, i in first.items() if key not in self._place and key not in self._waiting)

    def rows(self, keys: Sequence[bytes]) -> np.ndarray:
        """Returns the vectors, (n, D).

        Raises:
            KeyError: a key without features.
        """
        found = np.empty((len(keys), self.width), dtype=self.dtype)
        for index, key in enumerate(keys):
            place = self._place.get(key)
            found[index] = self._waiting[key] if place is None else self._features(place[0])[place[1]]
        return found

    def add(self, keys: Sequence[bytes], features: np.ndarray) -> None:
        """Takes in new features, (n, D); whole shards are written at once.

        Raises:
            ValueError: vectors of another length.
        """
        if features.shape != (len(keys), self.width):
            raise ValueError(f"feature cache: found features {features.shape}, expected {(len(keys), self.width)}")
        for key, row in zip(keys, features.astype(self.dtype), strict=True):
            if key not in self._place:
                self._waiting[key] = row
        if len(self._waiting) >= self.shard_rows:
            self.flush()

    def flush(self) -> None:
        """Writes what is still in memory as a shard; without room for it, it is forgotten."""
        if not self._waiting:
            return
        keys = np.frombuffer(b"".join(self._waiting), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        features = np.stack(list(self._waiting.values()))
        if self._room is None:
            name = self._write(keys, features)
        else:
            with self._room.asked(self.folder, keys.nbytes + features.nbytes) as may_grow:
                name = self._write(keys, features) if may_grow else ""
        if name:
            self._shards.add(name)
            for row, key in enumerate(self._waiting):
                self._place[key] = (name, row)
        self.is_full = not name
        self._waiting = {}

    def _write(self, keys: np.ndarray, features: np.ndarray) -> str:
        """Writes a shard, of which nothing is seen before it is whole, and returns its name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / _ABOUT
        if not about.is_file():
            partial = self.folder / f".{secrets.token_hex(8)}.json"
            partial.write_text(self._about)
            partial.replace(about)
        name = f"shard-{secrets.token_hex(8)}"
        partial = self.folder / f".{name}"
        partial.mkdir()
        np.save(partial / _KEYS, keys)
        np.save(partial / _FEATURES, features)
        (partial / _ABOUT).write_text(json.dumps({"crc32": [_crc32(keys), _crc32(features)]}) + "\n")
        partial.rename(self.folder / name)
        return name


def _checked_keys(path: Path, width: int, dtype: np.dtype) -> np.ndarray:
    """Returns the keys, uint8 (n, 16), of a shard whose checksums hold."""
    keys = np.load(path / _KEYS)
    features = np.load(path / _FEATURES, mmap_mode="r")
    if keys.dtype != np.uint8 or features.dtype != dtype:
        raise ValueError(f"found {keys.dtype} keys and {features.dtype} features")
    if keys.shape != (len(keys), _KEY_BYTES) or features.shape != (len(keys), width):
        raise ValueError(f"found keys {keys.shape} and features {features.shape}, expected {width} numbers per row")
    if json.loads((path / _ABOUT).read_text())["crc32"] != [_crc32(keys), _crc32(features)]:
        raise ValueError("its checksum does not hold")
    return keys


def _crc32(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B"))
