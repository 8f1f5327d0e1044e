from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from synfer.networks.diffusion import SMALL_SCHEDULER
from synfer.synthesis.diffusion.timestep_draw import TimestepDraw

ALPHAS = DDIMScheduler(**SMALL_SCHEDULER).alphas_cumprod
TOTAL = len(ALPHAS)


def drawn(n: int = 20000, seed: int = 0, alphas: Tensor = ALPHAS, **settings: Any) -> Tensor:
    return TimestepDraw(**settings).draw(n, alphas, torch.Generator().manual_seed(seed))


def test_uniform_is_what_it_always_was() -> None:
    expected = torch.randint(TOTAL, (64,), generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn(64, seed=3), expected)


@pytest.mark.parametrize(("mean", "std"), [(None, None), (0.8, 0.5)])
def test_the_share_of_the_way_is_logit_normal(mean: float | None, std: float | None) -> None:
    found = drawn(kind="logit_normal", mean=mean, std=std, uniform_share=0.0)
    x = torch.logit((found + 0.5) / TOTAL)
    assert float(x.mean()) == pytest.approx(mean or 0.0, abs=0.03)
    assert float(x.std()) == pytest.approx(std or 1.0, abs=0.03)


@pytest.mark.parametrize(("mean", "std"), [(None, None), (0.5, 0.8)])
def test_the_logarithm_of_noise_over_signal_is_normal(mean: float | None, std: float | None) -> None:
    found = drawn(kind="log_normal", mean=mean, std=std, uniform_share=0.0)
    x = 0.5 * torch.log((1 - ALPHAS) / ALPHAS)[found]
    assert x.isfinite().all()
    assert float(x.mean()) == pytest.approx(-0.5 if mean is None else mean, abs=0.03)
    assert float(x.std()) == pytest.approx(std or 1.2, abs=0.05)


def test_flow_matchings_logit_normal_is_log_normal_here() -> None:
    """Its σ is t ÷ (1 − t), so that ln σ is the normal number itself."""
    normal = torch.randn(20000, generator=torch.Generator().manual_seed(1))
    time = torch.sigmoid(normal)
    of_flow = torch.log(time / (1 - time))
    of_table = 0.5 * torch.log((1 - ALPHAS) / ALPHAS)[drawn(kind="log_normal", mean=0.0, std=1.0, uniform_share=0.0)]
    shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    assert torch.allclose(of_flow.quantile(shares), of_table.quantile(shares), atol=0.06)


@pytest.mark.parametrize("kind", ["logit_normal", "log_normal"])
def test_a_share_sees_pure_noise_as_often_as_ever(kind: Any) -> None:
    last = TOTAL - TOTAL // 100
    assert float((drawn(kind=kind, uniform_share=0.0) >= last).float().mean()) < 0.001
    assert float((drawn(kind=kind, uniform_share=0.5) >= last).float().mean()) == pytest.approx(0.005, abs=0.002)
    assert torch.equal(drawn(kind=kind, uniform_share=1.0).unique(), torch.arange(TOTAL))


@pytest.mark.parametrize("kind", ["uniform", "logit_normal", "log_normal"])
def test_strata_hold_the_distribution_and_calm_each_batch(kind: Any) -> None:
    free = torch.stack([drawn(64, seed, kind=kind) for seed in range(200)]).float()
    strata = torch.stack([drawn(64, seed, kind=kind, stratified=True) for seed in range(200)]).float()
    assert float(strata.mean()) == pytest.approx(float(free.mean()), rel=0.03)
    assert float(strata.std()) == pytest.approx(float(free.std()), rel=0.05)
    assert float(strata.mean(1).std()) < 0.2 * float(free.mean(1).std())
    assert float(strata[:, 0].std()) == pytest.approx(float(free.std()), rel=0.2), "each sample sees all levels"


@pytest.mark.parametrize("kind", ["uniform", "logit_normal", "log_normal"])
@pytest.mark.parametrize("stratified", [False, True])
def test_all_lie_in_the_schedule_and_follow_the_generator(kind: Any, stratified: bool) -> None:
    for alphas in (ALPHAS, ALPHAS[::250], ALPHAS[-2:]):
        found = drawn(512, alphas=alphas, kind=kind, stratified=stratified)
        assert found.dtype == torch.int64 and int(found.min()) >= 0 and int(found.max()) < len(alphas)
        assert torch.equal(found, drawn(512, alphas=alphas, kind=kind, stratified=stratified))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cosine"}, r"model.timesteps.kind: found cosine, expected one of uniform, logit_normal, log_normal"),
        ({"mean": 0.0}, r"model.timesteps.mean: found 0.0, expected null with model.timesteps.kind 'uniform'"),
        ({"std": 1.0}, r"model.timesteps.std: found 1.0, expected null with"),
        ({"kind": "log_normal", "std": 0.0}, r"model.timesteps.std: found 0.0, expected a number above 0 or null"),
        ({"kind": "log_normal", "uniform_share": 1.5}, r"model.timesteps.uniform_share: found 1.5, expected a share"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimestepDraw(**settings)
