"""Each loss against its equation, written out row by row in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from synfer.representation.losses import (
    cosine_regression,
    embedding_spread,
    hidden_patch_loss,
    momentum_contrast,
    nt_xent,
    pair_contrast,
)


def rows(count: int, seed: int, width: int = 5) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent(temperature: float) -> None:
    first, second = rows(4, 1), rows(4, 2)
    views = [*first.double().numpy(), *second.double().numpy()]
    total = 0.0
    for i in range(8):
        partner = (i + 4) % 8
        weights = {k: math.exp(cosine(views[i], views[k]) / temperature) for k in range(8) if k != i}
        total += -math.log(weights[partner] / sum(weights.values()))
    assert float(nt_xent(first, second, temperature)) == pytest.approx(total / 8, rel=1e-6)


def test_momentum_contrast() -> None:
    query, key, temperature = rows(4, 1), rows(4, 2), 0.2
    q, k = query.double().numpy(), key.double().numpy()
    total = 0.0
    for i in range(4):
        weights = [math.exp(cosine(q[i], k[j]) / temperature) for j in range(4)]
        total += -math.log(weights[i] / sum(weights))
    found = momentum_contrast(query, key, temperature)
    assert float(found) == pytest.approx(2 * temperature * total / 4, rel=1e-6)


def test_cosine_regression() -> None:
    a, b = rows(4, 1), rows(4, 2)
    wanted = np.mean(
        [
            ((x / np.linalg.norm(x) - y / np.linalg.norm(y)) ** 2).sum()
            for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)
        ]
    )
    assert float(cosine_regression(a, b)) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("loss", [lambda a, b: momentum_contrast(a, b, 0.2), cosine_regression])
def test_targets_get_no_gradient(loss: object) -> None:
    a, b = rows(4, 1).requires_grad_(), rows(4, 2).requires_grad_()
    loss(a, b).backward()  # type: ignore[operator]
    assert a.grad is not None and a.grad.abs().sum() > 0 and b.grad is None


@pytest.mark.parametrize("normalise", [False, True])
def test_hidden_patches_alone_count(normalise: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    target, drawn = (torch.rand(2, 4, 6, generator=generator) for _ in range(2))
    hidden = torch.tensor([[True, False, True, False], [False, True, True, False]])
    errors = []
    for face in range(2):
        for patch in range(4):
            if hidden[face, patch]:
                wanted = target[face, patch].double().numpy()
                if normalise:
                    wanted = (wanted - wanted.mean()) / math.sqrt(wanted.var(ddof=1) + 1e-6)
                errors.append(((drawn[face, patch].double().numpy() - wanted) ** 2).mean())
    found = float(hidden_patch_loss(drawn, target, hidden, normalise))
    assert found == pytest.approx(float(np.mean(errors)), rel=1e-5)


def test_losses_are_in_float32_under_autocast() -> None:
    a, b = rows(4, 1), rows(4, 2)
    plain = nt_xent(a, b, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert nt_xent(a, b, 0.1).dtype == torch.float32
    assert plain.dtype == torch.float32


def test_spread() -> None:
    assert float(embedding_spread(rows(4096, 0, 64))) == pytest.approx(1, abs=0.02)
    assert float(embedding_spread(rows(1, 0).expand(8, -1))) == pytest.approx(0, abs=1e-6)
    assert float(embedding_spread(rows(1, 0) * torch.rand(8, 1))) == pytest.approx(0, abs=1e-6)  # length is nothing


def test_pair_contrast() -> None:
    first, second, temperature = rows(4, 1), rows(4, 2), 0.2
    second[3] = second[1]  # one caption of two faces: both are right
    a, b = first.double().numpy(), second.double().numpy()
    right = [[0], [1, 3], [2], [1, 3]]
    total = 0.0
    for left, other in ((a, b), (b, a)):
        for i in range(4):
            weights = [math.exp(cosine(left[i], other[j]) / temperature) for j in range(4)]
            total += sum(-math.log(weights[j] / sum(weights)) for j in right[i]) / len(right[i])
    assert float(pair_contrast(first, second, temperature)) == pytest.approx(total / 8, rel=1e-6)


@pytest.mark.parametrize("loss", [nt_xent, momentum_contrast, pair_contrast])
def test_they_are_the_same_under_autocast(loss: Callable[..., torch.Tensor]) -> None:
    plain = loss(rows(16, 1, 32), rows(16, 2, 32), 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(rows(16, 1, 32), rows(16, 2, 32), 0.07), plain)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_they_are_those_of_lightly(temperature: float) -> None:
    """Where it is installed: it is in no extra, because it takes omegaconf down."""
    lightly = pytest.importorskip("lightly.loss")
    first, second = rows(16, 1, 32), rows(16, 2, 32)
    theirs = lightly.NTXentLoss(temperature=temperature)(first, second)
    assert float(nt_xent(first, second, temperature)) == pytest.approx(float(theirs), rel=1e-6)
    theirs = 2 + 2 * lightly.NegativeCosineSimilarity()(first, second)
    assert float(cosine_regression(first, second)) == pytest.approx(float(theirs), rel=1e-6)
