from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from synfer.synthesis.diffusion.prediction import (
    PredictionType,
    min_snr_weight,
    output_for,
    predict_clean,
    predict_noise,
    signal_and_noise,
    training_target,
)

SCHEDULER = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
ALPHAS = SCHEDULER.alphas_cumprod
TIMESTEPS = torch.tensor([0, 1, 250, 500, 998, 999])


def faces() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (len(TIMESTEPS), 4, 3, 3)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def test_signal_and_noise_are_the_schedule_s() -> None:
    clean, eps = faces()
    signal, noise = signal_and_noise(ALPHAS, TIMESTEPS, clean)
    assert signal.shape == noise.shape == (len(TIMESTEPS), 1, 1, 1)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones_like(signal))
    torch.testing.assert_close(signal * clean + noise * eps, SCHEDULER.add_noise(clean, eps, TIMESTEPS))


def test_one_timestep_for_all_is_the_same_as_one_for_each() -> None:
    clean, _ = faces()
    one = signal_and_noise(ALPHAS, 250, clean)
    each = signal_and_noise(ALPHAS, torch.full((len(clean),), 250), clean)
    assert all(torch.equal(a.expand_as(b), b) for a, b in zip(one, each, strict=True))


def test_velocity_is_that_of_diffusers() -> None:
    clean, eps = faces()
    signal, noise = signal_and_noise(ALPHAS, TIMESTEPS, clean)
    target = training_target(clean, eps, signal, noise, "v_prediction")
    torch.testing.assert_close(target, SCHEDULER.get_velocity(clean, eps, TIMESTEPS))
    assert torch.equal(training_target(clean, eps, signal, noise, "epsilon"), eps)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_network_gives_back_face_and_noise(prediction: PredictionType) -> None:
    clean, eps = faces()
    signal, noise = signal_and_noise(ALPHAS, TIMESTEPS, clean)
    noisy = signal * clean + noise * eps
    output = training_target(clean, eps, signal, noise, prediction)
    torch.testing.assert_close(predict_clean(output, noisy, signal, noise, prediction), clean, atol=2e-5, rtol=0)
    torch.testing.assert_close(predict_noise(output, noisy, signal, noise, prediction), eps, atol=2e-5, rtol=0)


def test_min_snr_weights_are_those_of_the_paper() -> None:
    snr = torch.tensor([0.01, 1.0, 5.0, 20.0, 1000.0]).view(-1, 1, 1, 1)
    signal, noise = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    for_eps = min_snr_weight(signal, noise, 5.0, "epsilon").flatten()
    torch.testing.assert_close(for_eps, torch.tensor([1.0, 1.0, 1.0, 0.25, 0.005]))
    for_v = min_snr_weight(signal, noise, 5.0, "v_prediction").flatten()
    torch.testing.assert_close(for_v, torch.tensor([0.01 / 1.01, 0.5, 5 / 6, 5 / 21, 5 / 1001]))


def test_all_forms_weigh_the_error_of_the_clean_face_alike() -> None:
    # The loss on ε is SNR times the loss on x0, that on v is SNR + 1 times it: with min-SNR all are min(SNR, γ).
    snr = torch.logspace(-2, 3, 9).view(-1, 1, 1, 1)
    signal, noise = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    on_clean = snr.clamp_max(5.0)
    torch.testing.assert_close(min_snr_weight(signal, noise, 5.0, "epsilon") * snr, on_clean)
    torch.testing.assert_close(min_snr_weight(signal, noise, 5.0, "v_prediction") * (snr + 1), on_clean)
    torch.testing.assert_close(min_snr_weight(signal, noise, 5.0, "sample"), on_clean)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_weights_are_finite_from_no_noise_to_nothing_but_noise(prediction: PredictionType) -> None:
    signal = torch.tensor([1.0, 1 - 1e-7, 0.5, 1e-7, 0.0]).view(-1, 1, 1, 1)
    noise = (1 - signal**2).sqrt()
    weight = min_snr_weight(signal, noise, 5.0, prediction)
    assert weight.isfinite().all() and (weight >= 0).all()
    assert torch.equal(min_snr_weight(signal, noise, None, prediction), torch.ones_like(signal))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_an_output_that_predicts_a_clean_face_does_so(prediction: PredictionType) -> None:
    clean, noisy = faces()
    signal, noise = signal_and_noise(ALPHAS, TIMESTEPS, clean)
    output = output_for(clean, noisy, signal, noise, prediction)
    torch.testing.assert_close(predict_clean(output, noisy, signal, noise, prediction), clean, atol=1e-4, rtol=1e-4)
