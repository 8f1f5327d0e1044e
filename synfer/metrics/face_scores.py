"""Scores of single faces: what a user may add to a generator's test."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor

from synfer.faces.captions import expression_in


class FaceScore(Protocol):
    """Says how good each face is by itself, or as a picture of its caption: agreement of a judge, a preference model.

    Attributes:
        name: word by which its mean is logged.
        higher_is_better: which way is good.
    """

    name: str
    higher_is_better: bool

    def __call__(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Returns one number per face, (n,), of images float32 in [0, 1], (n, 3, H, W), and their n captions."""


class Judge(Protocol):
    """A classifier that says which expression a face shows."""

    label_space: tuple[str, ...]

    def predict_probabilities(self, image: Tensor) -> Tensor:
        """Returns float32 (n, K) of images in [0, 1], (n, 3, H, W)."""


class JudgeAgreement:
    """The judge's probability of the expression that the caption names.

    Args:
        judge: the classifier.
    """

    name = "agreement"
    higher_is_better = True

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @torch.no_grad()
    def __call__(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Returns probabilities (n,).

        Raises:
            ValueError: a caption names no expression, or one that the judge does not know.
        """
        probabilities = self.judge.predict_probabilities(images)
        columns = [self.judge.label_space.index(expression_in(caption)) for caption in captions]
        return probabilities.gather(1, torch.tensor(columns, device=images.device)[:, None])[:, 0]


def load_score(path: str) -> FaceScore:
    """Returns a score by the import path of its class, made without arguments.

    Raises:
        ValueError: nothing there, or nothing that scores faces.
    """
    module, _, name = path.rpartition(".")
    expected = "expected package.module.Class of a score (name, higher_is_better, a call with images and captions)"
    try:
        score = getattr(import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"test.scores '{path}': {error}, {expected}") from error
    lacking = [part for part in ("name", "higher_is_better", "__call__") if not hasattr(score, part)]
    if lacking:
        raise ValueError(f"test.scores '{path}': found no {lacking[0]}, {expected}")
    return score


def metric_of(score: FaceScore) -> str:
    """Returns the name under which the mean of a score is logged: ``test/score/<name>``.

    ``test/score_lower/<name>`` where lower values are better: whoever compares runs later has their names alone, and
    not the score.
    """
    return f"test/{'score' if score.higher_is_better else 'score_lower'}/{score.name}"


def checked_scores(score: FaceScore, images: Tensor, captions: Sequence[str]) -> Tensor:
    """Returns a score of each face, float32 (n,).

    Raises:
        ValueError: not one number per face.
    """
    values = torch.as_tensor(score(images, captions))
    if tuple(values.shape) != (len(images),):
        raise ValueError(
            f"test.scores '{score.name}': found values of shape {tuple(values.shape)}, expected ({len(images)},), one "
            "per face"
        )
    return values.detach().float()
