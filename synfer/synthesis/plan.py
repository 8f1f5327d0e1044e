"""The list of synthetic samples that ``predict`` is to make: what, not how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from synfer.faces.action_units import ACTION_UNITS, sample_action_units
from synfer.faces.captions import caption_for
from synfer.foundation.counter_based_random import keyed_uniform, keys_of


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


def expressions_in_turn(names: Sequence[str], indices: Iterable[int]) -> list[str]:
    """Returns the expression of each sample of a set that holds those expressions in turn."""
    return [names[index % len(names)] for index in indices]


def draw_conditions(
    expressions: Sequence[str], indices: Sequence[int], seed: int, au_names: Sequence[str] = ACTION_UNITS
) -> tuple[list[str], np.ndarray]:
    """Returns captions, and action units float32 (n, A) in [0, 1], of the samples with these numbers.

    A pure function of (expression, seed, number), whoever asks: a set that is made ahead, the pool of a training, the
    grid and the test of a generator give sample i the same conditions, and so the same face.

    Args:
        expressions: n canonical names.
        indices: n numbers of samples, ≥ 0.
        seed: of the run.
        au_names: names of the A action units.
    """
    # By the name that the sample has in a set: sets that were begun so long ago go on with the same faces.
    keys = keys_of(sample_name(seed, index) for index in indices)
    uniform = keyed_uniform(keys, 2 * len(au_names), seed).reshape(len(keys), 2, len(au_names))
    return [caption_for(name) for name in expressions], sample_action_units(expressions, uniform, au_names)


def sample_name(seed: int, index: int) -> str:
    """Returns the sample id of a face in a set: "syn-<seed>-<index>"."""
    return f"syn-{seed}-{index:06d}"


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
        names = expressions_in_turn(self.expressions, index.tolist())
        label = np.array([self.label_space.index(name) for name in names], dtype=np.int64)
        captions, units = draw_conditions(names, index.tolist(), self.seed, self.au_names)
        return {
            "index": torch.from_numpy(index),
            "label": torch.from_numpy(label),
            "expression": names,
            "au": torch.from_numpy(units),
            "caption": captions,
            "sample_id": [sample_name(self.seed, i) for i in index.tolist()],
        }
