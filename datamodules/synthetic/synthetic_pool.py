"""A ring of synthetic samples in a memory-mapped file: one process writes, the workers of its loader read.

A data set that is handed to worker processes is copied, and what the trainer changes afterwards arrives late or never.
A shared mapping has neither problem: a sample can be drawn as soon as it is written.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_HEADER_BYTES = 64  # one cache line: the number of samples ever written, as int64
_LAYOUT_BYTES = 96
_TIMEOUT_S = 10.0


class SyntheticPool:
    """The newest synthetic samples of one rank, fixed in number; new ones overwrite the oldest.

    Every slot carries a version that is odd while it is being written, so a reader in another process never gets the
    picture of one sample with the label of another.

    Args:
        directory: folder for the file; must exist. Ranks of one machine may share it.
        slots: number of samples held.
        image_size: side of the pictures in pixels.
        num_classes: K, columns of the soft labels.
        num_action_units: A.
        rank: the rank that owns the pool.

    Raises:
        ValueError: fewer than one slot.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        slots: int,
        image_size: int,
        num_classes: int,
        num_action_units: int,
        rank: int = 0,
    ) -> None:
        if slots < 1:
            raise ValueError(f"data.pool_size={slots}: expected at least 1 slot")
        self.slots, self.image_size, self.rank = slots, image_size, rank
        self.num_classes, self.num_action_units = num_classes, num_action_units
        self.path = Path(directory) / f"pool-rank{rank}.bin"
        self._slot_type = np.dtype(
            [
                ("version", np.int64),
                ("number", np.int64),
                ("seed", np.int64),
                ("label", np.int64),
                ("soft_label", np.float32, (num_classes,)),
                ("au", np.float32, (num_action_units,)),
                ("layout", f"S{_LAYOUT_BYTES}"),
                ("image", np.uint8, (3, image_size, image_size)),
            ],
            align=True,
        )
        with self.path.open("wb") as file:
            file.truncate(_HEADER_BYTES + slots * self._slot_type.itemsize)
        self._map()

    def _map(self) -> None:
        self._header = np.memmap(self.path, dtype=np.int64, mode="r+", shape=(1,))
        self._ring = np.memmap(self.path, dtype=self._slot_type, mode="r+", offset=_HEADER_BYTES, shape=(self.slots,))

    def __getstate__(self) -> dict[str, Any]:
        """A pickled pool is its path: a spawned worker maps the same file instead of getting a copy."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_header", "_ring")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    @property
    def written(self) -> int:
        """Samples ever written, in whatever process."""
        return int(self._header[0])

    @property
    def filled(self) -> int:
        """Slots that hold a sample."""
        return min(self.written, self.slots)

    def __len__(self) -> int:
        return self.filled

    def begin_at(self, number: int) -> None:
        """Has the next sample get this number: a pool that is filled again counts on where it stood.

        Raises:
            RuntimeError: something has been written already.
        """
        if self.written:
            raise RuntimeError(
                f"synthetic pool: found {self.written} samples, expected an empty one to begin at {number}"
            )
        self._header[0] = number

    def append(
        self,
        images: Tensor,
        label: Tensor,
        soft_label: Tensor,
        au: Tensor,
        seed: Tensor | Sequence[int],
        layout: Sequence[str],
    ) -> list[str]:
        """Writes n samples over the oldest ones.

        Args:
            images: uint8 (n, 3, H, W), RGB.
            label: int64 (n,).
            soft_label: float (n, K), rows sum to 1.
            au: float (n, A) in [0, 1], NaN = unknown.
            seed: n integers, each sample's own.
            layout: n names of where the starting layout came from; "" for none. Of one longer than 96 bytes the pool
                keeps the beginning and a digest.

        Returns:
            The n sample ids, "syn-<rank>-<number>", the number counting from 0 over the whole run.

        Raises:
            ValueError: a wrong shape or type, a label outside the label space, or soft labels that do not sum to 1.
        """
        n = len(images)
        side = self.image_size
        numbers = self.written + np.arange(n)
        found_expected = {
            "images": (tuple(images.shape), (n, 3, side, side)),
            "label": (tuple(label.shape), (n,)),
            "soft_label": (tuple(soft_label.shape), (n, self.num_classes)),
            "au": (tuple(au.shape), (n, self.num_action_units)),
            "seed": (len(seed), n),
            "layout": (len(layout), n),
        }
        for name, (found, expected) in found_expected.items():
            if found != expected:
                raise ValueError(f"synthetic pool: {name} has shape {found}, expected {expected}")
        if images.dtype != torch.uint8:
            raise ValueError(f"synthetic pool: images are {images.dtype}, expected torch.uint8")
        if n == 0:
            return []
        label, soft_label = label.detach().cpu(), soft_label.detach().float().cpu()
        if int(label.min()) < 0 or int(label.max()) >= self.num_classes:
            raise ValueError(f"synthetic pool: found labels {label.tolist()}, expected 0…{self.num_classes - 1}")
        if not bool(((soft_label.sum(1) - 1).abs() < 1e-3).all()):
            raise ValueError(f"synthetic pool: soft labels sum to {soft_label.sum(1).tolist()}, expected 1")
        records = np.zeros(n, dtype=self._slot_type)
        records["number"] = numbers
        records["seed"] = np.asarray(seed.cpu() if isinstance(seed, Tensor) else seed, dtype=np.int64)
        records["label"] = label.numpy()
        records["soft_label"] = soft_label.numpy()
        records["au"] = au.detach().float().cpu().numpy()
        records["layout"] = [_short(name) for name in layout]
        records["image"] = images.detach().cpu().numpy()
        for begin in range(0, n, self.slots):  # more samples than slots: only the last ones stay
            self._write(records[begin : begin + self.slots])
        return [f"syn-{self.rank}-{number}" for number in numbers]

    def _write(self, records: np.ndarray) -> None:
        where = records["number"] % self.slots
        version = self._ring["version"][where]
        self._ring["version"][where] = version + 1
        for name in self._slot_type.names or ():
            if name != "version":
                self._ring[name][where] = records[name]
        self._ring["version"][where] = version + 2
        self._header[0] = records["number"][-1] + 1  # last: a slot counts as filled only when it is whole

    def read(self, slots: Tensor | np.ndarray | Sequence[int]) -> dict[str, Any]:
        """Returns the samples of n slots; slot s means s modulo the number of filled slots.

        Returns:
            image uint8 (n, 3, H, W), label int64 (n,), soft_label float32 (n, K), au float32 (n, A), is_synthetic bool
            (n,), sample_id and layout (n strings each), seed int64 (n,).

        Raises:
            RuntimeError: the pool is empty.
        """
        filled = self.filled
        if filled == 0:
            raise RuntimeError(
                f"the synthetic pool of rank {self.rank} is empty: enable --synthesis.enabled=true, give "
                "--data.synthetic_reader, or set --data.synthetic_ratio=0"
            )
        where = np.asarray(slots, dtype=np.int64) % filled
        records = self._read_whole(where)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(records["image"])),
            "label": torch.from_numpy(records["label"].copy()),
            "soft_label": torch.from_numpy(np.ascontiguousarray(records["soft_label"])),
            "au": torch.from_numpy(np.ascontiguousarray(records["au"])),
            "is_synthetic": torch.ones(len(where), dtype=torch.bool),
            "sample_id": [f"syn-{self.rank}-{number}" for number in records["number"].tolist()],
            "seed": torch.from_numpy(records["seed"].copy()),
            "layout": [name.decode(errors="ignore") for name in records["layout"].tolist()],
        }

    def _read_whole(self, where: np.ndarray) -> np.ndarray:
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            version = self._ring["version"][where]
            records = np.asarray(self._ring[where])
            if not (version & 1).any() and np.array_equal(version, self._ring["version"][where]):
                return records
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"synthetic pool {self.path}: a slot is still half written after {_TIMEOUT_S:g} s: its writer died"
                )
            time.sleep(1e-4)


def _short(name: str) -> bytes:
    """Returns a name as bytes that fit into a slot: a longer one, a deep path, as its beginning and a digest."""
    whole = name.encode()
    if len(whole) <= _LAYOUT_BYTES:
        return whole
    digest = hashlib.blake2b(whole, digest_size=8).hexdigest()
    return whole[: _LAYOUT_BYTES - len(digest) - 1] + b"#" + digest.encode()
