from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from synfer.metrics.affect_scores import AffectScores
from synfer.metrics.soft_label_scores import SoftLabelScores


def reference(rated: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The definitions, in float64, of one of the two."""
    covariance = np.mean((rated - rated.mean()) * (truth - truth.mean()))
    return {
        "ccc": 2 * covariance / (rated.var() + truth.var() + (rated.mean() - truth.mean()) ** 2),
        "pearson": np.corrcoef(rated, truth)[0, 1],
        "rmse": np.sqrt(np.mean((rated - truth) ** 2)),
        "sagr": np.mean(np.sign(rated) == np.sign(truth)),
    }


def some_rows(n: int = 997) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(0)
    truth = random.uniform(-1, 1, (n, 2)).astype(np.float32)
    truth[:50, 0] = 0.0
    rated = np.tanh(0.7 * truth + 0.3 * random.normal(size=(n, 2)) + (0.2, 0.0)).astype(np.float32)
    truth[random.random((n, 2)) < 0.2] = np.nan
    return torch.from_numpy(rated), torch.from_numpy(truth)


@pytest.mark.parametrize("sizes", [(997,), (1, 300, 0, 696)])
def test_scores_are_those_of_all_rows_however_they_fall_into_batches(sizes: tuple[int, ...]) -> None:
    rated, truth = some_rows()
    metric = AffectScores()
    for batch in zip(rated.split(list(sizes)), truth.split(list(sizes)), strict=True):
        metric.update(*batch)
    found = metric.compute()
    for column, name in enumerate(("valence", "arousal")):
        known = ~truth[:, column].isnan()
        expected = reference(rated[known, column].double().numpy(), truth[known, column].double().numpy())
        assert {score: found[f"{score}/{name}"] for score in expected} == pytest.approx(expected, abs=1e-12)
    assert found["ccc_mean"] == pytest.approx((found["ccc/valence"] + found["ccc/arousal"]) / 2)


def one_of_three(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=3)
    try:
        metric, labels = AffectScores(), SoftLabelScores(2)
        shares = [slice(0, 7), slice(7, 7), slice(7, 40)]  # other numbers of rows on each, none on one of them
        rated, truth = some_rows(40)
        metric.update(rated[shares[rank]], truth[shares[rank]])
        labels.update(rated.softmax(1)[shares[rank]], rated.flip(1).softmax(1)[shares[rank]])
        torch.save({"affect": metric.compute(), "labels": labels.compute()}, f"{folder}/rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_every_rank_gets_the_scores_of_all_rows(tmp_path: Path) -> None:
    # Forked: a process that imports torch anew costs seconds.
    torch.multiprocessing.start_processes(one_of_three, (str(tmp_path),), nprocs=3, start_method="fork")
    whole, labels = AffectScores(), SoftLabelScores(2)
    rated, truth = some_rows(40)
    whole.update(rated, truth)
    labels.update(rated.softmax(1), rated.flip(1).softmax(1))
    for rank in range(3):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found["affect"] == pytest.approx(whole.compute(), abs=1e-13)
        assert found["labels"] == pytest.approx(labels.compute(), abs=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.3, -1 / 3, 1.0])
@pytest.mark.parametrize("batches", [1, 37])
def test_constant_ratings_say_nothing(constant: float, batches: int) -> None:
    truth = some_rows(1000)[1]
    metric = AffectScores()
    for part in truth.chunk(batches):
        metric.update(torch.full_like(part, constant), part)
    found = metric.compute()
    assert all(np.isfinite(value) for value in found.values())
    assert found["ccc/valence"] == found["pearson/arousal"] == found["ccc_mean"] == 0.0
    assert found["rmse/arousal"] > 0.1
    same = AffectScores()
    same.update(torch.full((5, 2), constant), torch.full((5, 2), constant))
    assert same.compute()["ccc/valence"] == 0.0 and same.compute()["sagr/valence"] == 1.0


def test_zero_is_a_sign_of_its_own() -> None:
    metric = AffectScores()
    metric.update(torch.tensor([[0.1, 0.0], [-0.1, 0.2]]), torch.tensor([[0.0, 0.0], [-0.5, -0.2]]))
    found = metric.compute()
    assert found["sagr/valence"] == 0.5 and found["sagr/arousal"] == 0.5


def test_what_nobody_knows_has_no_scores() -> None:
    metric = AffectScores()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metric.compute() == {}
    metric.reset()
    metric.update(torch.rand(4, 2), torch.tensor([[0.5, torch.nan]] * 3 + [[torch.nan, torch.nan]]))
    assert {name.split("/")[1] for name in metric.compute()} == {"valence"}  # and no mean of both
