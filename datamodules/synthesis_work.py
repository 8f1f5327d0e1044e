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
from datamodules.keyed_random import keyed_uniform, keys_of


class WorkBatch(TypedDict):
    """n samples to make.

    Keys:
        index: int64 (n,), place in the list.
        label: int64 (n,), index into the label space.
        expression: n names.
        au: float32 (n, A) in [0, 1].
        caption: n captions.
        sample_id: n strings, "syn-<seed>-<index>".
    """

    index: Tensor
    label: Tensor
    expression: list[str]
    au: Tensor
    caption: list[str]
    sample_id: list[str]


class SynthesisWork(Dataset):
    """``count`` samples, the expressions in turn, each a pure function of (seed, index).

    Args:
        count: number of samples.
        label_space: names of the K expressions.
        seed: of the whole set.
        au_names: names of the action units.
        expressions: those to make; None = all of the label space.
        done: indices that exist already and are left out.

    Raises:
        ValueError: an expression outside the label space.
    """

    def __init__(
        self,
        count: int,
        label_space: tuple[str, ...],
        seed: int,
        au_names: tuple[str, ...] = ACTION_UNITS,
        expressions: Sequence[str] | None = None,
        done: np.ndarray | None = None,
    ) -> None:
        self.label_space, self.seed, self.au_names = label_space, seed, au_names
        self.expressions = list(label_space if expressions is None else expressions)
        unknown = [name for name in self.expressions if name not in label_space]
        if unknown:
            raise ValueError(f"data.synthesis_expressions: found '{unknown[0]}', expected some of {list(label_space)}")
        every = np.arange(count, dtype=np.int64)
        self.to_do = every if done is None else np.setdiff1d(every, done)

    def __len__(self) -> int:
        return len(self.to_do)

    def __getitem__(self, index: int) -> WorkBatch:
        """Returns a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> WorkBatch:
        """Returns the batch of these places in what is left to do; ``collate_fn`` has nothing left to do."""
        places = np.asarray(indices, dtype=np.int64)
        index = self.to_do[places[places >= 0]]  # below 0: none, as EvaluationSampler says it
        names = [self.expressions[k] for k in (index % len(self.expressions)).tolist()]
        label = np.array([self.label_space.index(name) for name in names], dtype=np.int64)
        sample_id = [f"syn-{self.seed}-{i:06d}" for i in index.tolist()]
        keys = keys_of(sample_id)
        uniform = keyed_uniform(keys, 2 * len(self.au_names), self.seed).reshape(len(index), 2, len(self.au_names))
        return {
            "index": torch.from_numpy(index),
            "label": torch.from_numpy(label),
            "expression": names,
            "au": torch.from_numpy(sample_action_units(names, uniform, self.au_names)),
            "caption": [caption_for(name) for name in names],
            "sample_id": sample_id,
        }
