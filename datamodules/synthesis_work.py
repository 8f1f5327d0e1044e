"""The list of synthetic samples that ``predict`` is to make: what, not how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.captions import caption_for
from datamodules.expressions import ACTION_UNITS, sample_action_units
from datamodules.keyed_random import key_of, keyed_uniform, keys_of


class WorkBatch(TypedDict):
    """n samples to make.

    Keys:
        index: int64 (n,), place in the list.
        label: int64 (n,), index into the label space.
        expression: n names.
        au: float32 (n, A) in [0, 1].
        caption: n captions.
        seed: int64 (n,), of each sample's own noise.
        sample_id: n strings, "syn-<seed>-<index>".
    """

    index: Tensor
    label: Tensor
    expression: list[str]
    au: Tensor
    caption: list[str]
    seed: Tensor
    sample_id: list[str]


class SynthesisWork(Dataset):
    """``count`` samples, the expressions in turn, each a pure function of (seed, sample id).

    Args:
        count: number of samples.
        label_space: names of the expressions.
        seed: of the whole set.
        au_names: names of the action units.
    """

    def __init__(
        self, count: int, label_space: tuple[str, ...], seed: int, au_names: tuple[str, ...] = ACTION_UNITS
    ) -> None:
        self.count, self.label_space, self.seed, self.au_names = count, label_space, seed, au_names

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> WorkBatch:
        """Returns a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> WorkBatch:
        """Returns the batch of these indices; ``collate_fn`` has nothing left to do."""
        index = np.asarray(indices, dtype=np.int64)
        label = index % len(self.label_space)
        names = [self.label_space[k] for k in label.tolist()]
        sample_id = [f"syn-{self.seed}-{i:06d}" for i in index.tolist()]
        keys = keys_of(sample_id)
        uniform = keyed_uniform(keys, 2 * len(self.au_names), self.seed).reshape(len(index), 2, -1)
        return {
            "index": torch.from_numpy(index),
            "label": torch.from_numpy(label),
            "expression": names,
            "au": torch.from_numpy(sample_action_units(names, uniform, self.au_names)),
            "caption": [caption_for(name) for name in names],
            "seed": torch.tensor([key_of(f"{self.seed}/{name}") for name in sample_id], dtype=torch.int64),
            "sample_id": sample_id,
        }
