from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.diffusion.guide_calibration import MOST_LEVELS, calibrated_levels
from tests.fixtures.tiny_generator import (
    NAMES,
    SIDE,
    opinionated_classifier,
    request_for,
    scaled_weights,
    state_for,
    tiny_generator,
)

FACES = 60


@pytest.fixture(scope="module")
def generator() -> ExpressionGenerator:
    return scaled_weights(tiny_generator()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def guide() -> ExpressionClassifier:
    return opinionated_classifier()


@pytest.fixture(scope="module")
def faces(guide: ExpressionClassifier) -> tuple[Tensor, Tensor]:
    """Faces, and labels that a guide is right about in two of three."""
    random = torch.Generator().manual_seed(5)
    brightness = torch.rand(FACES, 3, 1, 1, generator=random) * 200
    image = (brightness + torch.rand(FACES, 3, SIDE, SIDE, generator=random) * 50).to(torch.uint8)
    label = guide.predict_probabilities(image.float() / 255).argmax(1)
    return image, torch.where(torch.arange(FACES) % 3 == 0, (label + 1) % len(NAMES), label)


def state_of(generator: ExpressionGenerator, **settings: Any) -> DenoisingState:
    return state_for(generator, request_for(**settings))


def test_each_level_has_the_temperature_that_lowers_the_loss_most(
    generator: ExpressionGenerator, guide: ExpressionClassifier, faces: tuple[Tensor, Tensor]
) -> None:
    asked: list[Tensor] = []

    def look(image: Tensor) -> Tensor:
        logits = guide(image)
        asked.append(logits.detach())
        return logits

    levels = calibrated_levels(state_of(generator, num_steps=4), look, *faces, chunk=FACES)
    assert len(levels) == 4 and [level.noise for level in levels] == sorted(level.noise for level in levels)
    for level, logits in zip(levels, reversed(asked), strict=True):  # sampling begins at the most noise
        grid = torch.logspace(-1.3, 1.3, 2000)
        losses = torch.stack([torch.nn.functional.cross_entropy(logits / t, faces[1]) for t in grid])
        assert level.loss == pytest.approx(float(losses.amin()), abs=2e-4)
        if 0.06 < level.temperature < 19:
            assert level.temperature == pytest.approx(float(grid[losses.argmin()]), rel=0.02)
        assert level.loss_before == pytest.approx(float(torch.nn.functional.cross_entropy(logits, faces[1])), abs=1e-4)
        assert level.accuracy == pytest.approx(float((logits.argmax(1) == faces[1]).float().mean()), abs=1e-4)


def test_a_guide_with_thrice_the_logits_has_thrice_the_temperature(
    generator: ExpressionGenerator, guide: ExpressionClassifier, faces: tuple[Tensor, Tensor]
) -> None:
    state = state_of(generator)
    plain = calibrated_levels(state, guide, *faces)
    sharper = calibrated_levels(state, lambda image: 3 * guide(image), *faces)
    inside = [(a, b) for a, b in zip(plain, sharper, strict=True) if a.temperature > 0.06 and b.temperature < 19]
    assert inside
    for one, three in inside:
        assert three.temperature == pytest.approx(3 * one.temperature, rel=0.01)
        assert three.loss == pytest.approx(one.loss, abs=1e-3)


def test_what_the_guide_sees_is_predicted_from_the_noised_face_without_caption(
    generator: ExpressionGenerator, guide: ExpressionClassifier, faces: tuple[Tensor, Tensor]
) -> None:
    state = state_of(generator, expressions=["happy", "sad"])
    levels = calibrated_levels(state, guide, *faces)
    state.text = torch.randn_like(state.text)  # what a request asks for does not count
    assert calibrated_levels(state, guide, *faces) == levels
    clean: list[Tensor] = []

    def look(image: Tensor) -> Tensor:
        clean.append(image)
        return guide(image)

    calibrated_levels(state, look, *faces, chunk=FACES)
    real = faces[0].float() / 255
    distance = [float((seen - real).pow(2).mean()) for seen in clean]
    assert distance == sorted(distance, reverse=True)  # the less noise, the more of the face is there


def test_it_depends_neither_on_the_parts_nor_on_the_run_and_leaves_the_state_alone(
    generator: ExpressionGenerator, guide: ExpressionClassifier, faces: tuple[Tensor, Tensor]
) -> None:
    state = state_of(generator)
    before = {name: value for name, value in vars(state).items() if isinstance(value, Tensor)}
    whole = calibrated_levels(state, guide, *faces, chunk=1000)
    torch.manual_seed(99)
    parts = calibrated_levels(state, guide, *faces, chunk=7)
    for one, other in zip(whole, parts, strict=True):
        assert other.temperature == pytest.approx(one.temperature, rel=2e-3)
    assert all(getattr(state, name) is value for name, value in before.items()) and state.step == 0


def test_of_many_steps_a_few_levels_are_taken_the_first_and_last_among_them(
    generator: ExpressionGenerator, guide: ExpressionClassifier, faces: tuple[Tensor, Tensor]
) -> None:
    state = state_of(generator, num_steps=50)
    levels = calibrated_levels(state, guide, faces[0][:4], faces[1][:4])
    assert len(levels) == MOST_LEVELS
    ends = [round(float(state.sampler.noise_levels(step)[0][1]), 6) for step in (49, 0)]
    assert [levels[0].noise, levels[-1].noise] == ends
    one = calibrated_levels(state_of(generator, num_steps=1), guide, faces[0][:4], faces[1][:4])
    assert len(one) == 1


def test_a_guide_on_latents_needs_no_decoder(generator: ExpressionGenerator, faces: tuple[Tensor, Tensor]) -> None:
    state = state_of(generator)

    def refuse(latents: Tensor) -> Tensor:
        raise AssertionError("decoded")

    state.decode = refuse
    levels = calibrated_levels(state, lambda latents: latents.mean((2, 3))[:, :3], *faces, on_latents=True)
    assert len(levels) == 4
