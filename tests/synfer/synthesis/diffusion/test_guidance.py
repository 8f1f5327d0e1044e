from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.diffusion.denoising import guided_output
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.diffusion.guidance import (
    GuidanceStep,
    guidance_loss,
    guidance_step,
    guide_entropy,
    latent_guidance_step,
    moved_output,
    normalised_gradient_step,
)
from tests.fixtures.tiny_generator import (
    NAMES,
    opinionated_classifier,
    request_for,
    save_base,
    scaled_weights,
    state_for,
)
from tests.fixtures.tiny_generator import tiny_generator as make_generator


@pytest.fixture(scope="module", params=["space_to_depth", "autoencoder_kl"])
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ExpressionGenerator:
    if request.param == "space_to_depth":
        return scaled_weights(make_generator())
    return scaled_weights(make_generator(base=str(save_base(tmp_path_factory.mktemp("base")))))


@pytest.fixture(scope="module")
def guide() -> ExpressionClassifier:
    """A classifier whose opinion depends strongly on the picture."""
    return opinionated_classifier()


def guidance_gradient(
    state: DenoisingState, guide: ExpressionClassifier, label: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    step = guidance_step(state, guide, label)
    return step.gradient, step.loss, step.output


def mid_state(generator: ExpressionGenerator, n: int = 3, first_id: int = 0) -> DenoisingState:
    """A state late in the sampling, with a grey picture, so that no pixel of the clean face is clamped."""
    state = state_for(generator, request_for([NAMES[i % 3] for i in range(n)], first_id, num_steps=10))
    state.step = 6
    signal = float(state.sampler.noise_levels(state.step)[0][0])
    state.latents = state.latents * (1 - signal**2) ** 0.5 * 0.3
    return state


def wanted(state: DenoisingState) -> Tensor:
    """The intended expression of each sample, by number."""
    return torch.tensor([NAMES.index(name) for name in state.request.expressions])


@torch.no_grad()
def losses_at(state: DenoisingState, guide: ExpressionClassifier, text: Tensor, label: Tensor) -> Tensor:
    """The loss written out once more, without gradients."""
    output = state.network(state.latents, state.timestep, text, state.au)
    alpha = state.sampler.noise_levels(state.step)[0][0] ** 2
    if state.prediction == "epsilon":
        clean = (state.latents - (1 - alpha).sqrt() * output) / alpha.sqrt()
    else:
        clean = alpha.sqrt() * state.latents - (1 - alpha).sqrt() * output
    image = ((state.decode(clean) + 1) / 2).clamp(0, 1)
    return -guide(image).log_softmax(1).gather(1, label[:, None])[:, 0]


def test_gradient_equals_finite_differences(generator: ExpressionGenerator, guide: ExpressionClassifier) -> None:
    state = mid_state(generator)
    gradient, loss, output = guidance_gradient(state, guide, wanted(state))
    assert gradient.shape == state.text.shape and output.shape == state.latents.shape
    torch.testing.assert_close(loss, losses_at(state, guide, state.text, wanted(state)), atol=1e-5, rtol=1e-5)
    assert not gradient.requires_grad and not loss.requires_grad and not output.requires_grad
    random = torch.Generator().manual_seed(0)
    norm = gradient.flatten(1).norm(dim=1)
    assert (norm > 1e-4).all()
    own = gradient / norm[:, None, None]
    directions = [own] + [torch.randn(own.shape, generator=random) + 3 * own for _ in range(4)]
    for direction in directions:
        unit = direction / direction.flatten(1).norm(dim=1)[:, None, None]
        step = 0.02
        above = losses_at(state, guide, state.text + step * unit, wanted(state))
        below = losses_at(state, guide, state.text - step * unit, wanted(state))
        slope = (gradient * unit).sum((1, 2))
        torch.testing.assert_close((above - below) / (2 * step), slope, atol=2e-2 * float(norm.amax()), rtol=2e-2)


def test_each_sample_has_its_own_gradient(generator: ExpressionGenerator, guide: ExpressionClassifier) -> None:
    whole = mid_state(generator)
    together, _, _ = guidance_gradient(whole, guide, wanted(whole))
    alone = mid_state(generator, n=1)
    gradient, _, _ = guidance_gradient(alone, guide, wanted(alone))
    torch.testing.assert_close(gradient[0], together[0], atol=1e-5, rtol=1e-3)


def test_a_small_step_down_lowers_the_loss_in_nearly_all_cases(
    generator: ExpressionGenerator, guide: ExpressionClassifier
) -> None:
    lowered = raised_by_ascent = total = 0
    for first_id in range(0, 200, 40):
        state = mid_state(generator, n=40, first_id=first_id)
        gradient, before, _ = guidance_gradient(state, guide, wanted(state))
        down = losses_at(state, guide, normalised_gradient_step(state.text, gradient, 0.02), wanted(state))
        up = losses_at(state, guide, normalised_gradient_step(state.text, -gradient, 0.02), wanted(state))
        lowered += int((down < before).sum())
        raised_by_ascent += int((up > before).sum())
        total += 40
    assert total == 200
    assert lowered >= 0.97 * total and raised_by_ascent >= 0.97 * total


def test_output_is_the_conditional_one(generator: ExpressionGenerator, guide: ExpressionClassifier) -> None:
    state = mid_state(generator)
    _, _, output = guidance_gradient(state, guide, wanted(state))
    with torch.no_grad():
        torch.testing.assert_close(output, state.predict(state.text, state.au), atol=1e-6, rtol=0)


def test_soft_labels_guide_too(generator: ExpressionGenerator, guide: ExpressionClassifier) -> None:
    state = mid_state(generator)
    hard, loss, _ = guidance_gradient(state, guide, wanted(state))
    one_hot = torch.nn.functional.one_hot(wanted(state), 3).float()
    soft, soft_loss, _ = guidance_gradient(state, guide, one_hot)
    torch.testing.assert_close(soft, hard, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(soft_loss, loss)


def test_networks_are_left_without_gradients(generator: ExpressionGenerator, guide: ExpressionClassifier) -> None:
    state = mid_state(generator)
    guidance_gradient(state, guide, wanted(state))
    assert all(p.grad is None for module in (generator, guide) for p in module.parameters())
    assert not state.text.requires_grad


def test_loss_is_the_cross_entropy_per_sample() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    expected = -logits.log_softmax(1)
    torch.testing.assert_close(guidance_loss(logits, torch.tensor([0, 1])), expected[[0, 1], [0, 1]])
    half = torch.tensor([[0.5, 0.5, 0.0]])
    torch.testing.assert_close(guidance_loss(logits[:1], half), (expected[:1] * half).sum(1))
    assert guidance_loss(logits.bfloat16(), torch.tensor([0, 1])).dtype == torch.float32


# ---------------------------------------------------------------- through the latents


def with_output(state: DenoisingState) -> DenoisingState:
    with torch.no_grad():
        state.output = guided_output(state)
    return state


def test_gradient_by_the_clean_face_equals_finite_differences(
    generator: ExpressionGenerator, guide: ExpressionClassifier
) -> None:
    state = with_output(mid_state(generator))
    label = wanted(state)
    found = latent_guidance_step(state, guide, label)
    assert state.output is not None and torch.equal(found.output, state.output)
    clean = state.clean(state.output)

    @torch.no_grad()
    def losses(at: Tensor) -> Tensor:
        image = ((state.decode(at) + 1) / 2).clamp(0, 1)
        return -guide(image).log_softmax(1).gather(1, label[:, None])[:, 0]

    torch.testing.assert_close(found.loss, losses(clean), atol=1e-5, rtol=1e-5)
    norm = found.gradient.flatten(1).norm(dim=1)
    unit = found.gradient / norm.view(-1, 1, 1, 1)
    slope = (losses(clean + 0.02 * unit) - losses(clean - 0.02 * unit)) / 0.04
    torch.testing.assert_close(slope, norm, atol=3e-2 * float(norm.amax()), rtol=3e-2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_moved_output_predicts_the_moved_face(
    prediction: str, generator: ExpressionGenerator, guide: ExpressionClassifier
) -> None:
    state = with_output(mid_state(generator))
    state.prediction = prediction  # type: ignore[assignment]
    rows = torch.tensor([0, 2])
    found = latent_guidance_step(state, guide, wanted(state)[rows], rows)
    output = moved_output(state, found, rows, 1.5)
    assert state.output is not None
    moved = state.clean(output, state.latents[rows]) - state.clean(state.output[rows], state.latents[rows])
    length = 1.5 * float(state.sampler.noise_levels(state.step)[0][1])
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((2,), length), atol=1e-3, rtol=1e-3)
    cosine = torch.cosine_similarity(moved.flatten(1), -found.gradient.flatten(1), dim=1)
    torch.testing.assert_close(cosine, torch.ones(2), atol=1e-3, rtol=0)


def test_inference_mode_is_a_clear_error_through_the_latents_too(
    generator: ExpressionGenerator, guide: ExpressionClassifier
) -> None:
    state = with_output(mid_state(generator))
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"set trainer\.inference_mode to false"):
        latent_guidance_step(state, guide, wanted(state))


# ---------------------------------------------------------------- the entropy term


def test_entropy_is_that_of_the_softmax_and_has_a_finite_gradient_where_the_guide_is_certain() -> None:
    logits = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 2.0], [0.0, 1e4, -1e4]], requires_grad=True)
    half = torch.tensor([2.0, 0.0, 2.0]).softmax(0)
    expected = torch.stack([torch.tensor(3.0).log(), -(half * half.log()).sum(), torch.tensor(0.0)])
    found = guide_entropy(logits)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient.isfinite().all() and not gradient[2].any()
    assert guide_entropy(logits.bfloat16()).dtype == torch.float32


def found_by(
    through: str,
    state: DenoisingState,
    guide: ExpressionClassifier,
    label: Tensor,
    entropy_weight: float,
    chunk: int | None = None,
) -> GuidanceStep:
    step = guidance_step if through == "text" else latent_guidance_step
    return step(state, guide, label, chunk=chunk, entropy_weight=entropy_weight)


SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6], [1.0, 0.0, 0.0]])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("through", ["text", "latents"])
def test_with_the_entropy_the_gradient_equals_finite_differences(
    through: str, soft: bool, generator: ExpressionGenerator, guide: ExpressionClassifier
) -> None:
    state = with_output(mid_state(generator))
    label = SOFT if soft else wanted(state)
    shares = SOFT if soft else torch.nn.functional.one_hot(label, 3).float()
    found = found_by(through, state, guide, label, 0.8)
    start = state.text if through == "text" else state.clean(state.output)  # type: ignore[arg-type]

    @torch.no_grad()
    def parts(at: Tensor) -> tuple[Tensor, Tensor]:
        clean = state.clean(state.network(state.latents, state.timestep, at, state.au)) if through == "text" else at
        logarithms = guide(((state.decode(clean) + 1) / 2).clamp(0, 1)).log_softmax(1)
        return -(shares * logarithms).sum(1), -(logarithms.exp() * logarithms).sum(1)

    def losses(at: Tensor) -> Tensor:
        loss, entropy = parts(at)
        return loss + 0.8 * entropy

    torch.testing.assert_close(found.loss, parts(start)[0], atol=1e-5, rtol=1e-5)  # without the entropy
    norm = found.gradient.flatten(1).norm(dim=1)
    unit = found.gradient / norm.view(-1, *[1] * (start.ndim - 1))
    slope = (losses(start + 0.02 * unit) - losses(start - 0.02 * unit)) / 0.04
    torch.testing.assert_close(slope, norm, atol=3e-2 * float(norm.amax()), rtol=3e-2)


@pytest.mark.parametrize("through", ["text", "latents"])
def test_a_weight_of_zero_changes_nothing_and_another_one_the_gradient_alone(
    through: str, generator: ExpressionGenerator, guide: ExpressionClassifier
) -> None:
    state = with_output(mid_state(generator))
    step = guidance_step if through == "text" else latent_guidance_step
    plain = step(state, guide, wanted(state))
    none, some = (found_by(through, state, guide, wanted(state), weight) for weight in (0.0, 0.8))
    assert torch.equal(none.gradient, plain.gradient)
    assert not torch.allclose(some.gradient, plain.gradient, rtol=1e-2)
    torch.testing.assert_close(some.loss, plain.loss)
    torch.testing.assert_close(some.probability, plain.probability)  # who is sure is asked without it
    parts = found_by(through, state, guide, wanted(state), 0.8, chunk=2)
    torch.testing.assert_close(parts.gradient, some.gradient, atol=1e-5, rtol=1e-3)


# ---------------------------------------------------------------- the step


def test_step_has_the_asked_length_over_the_whole_embedding() -> None:
    text, gradient = torch.randn(4, 5, 6), torch.randn(4, 5, 6) * torch.tensor([1e-6, 1.0, 1e6, 3.0]).view(-1, 1, 1)
    moved = normalised_gradient_step(text, gradient, 0.25) - text
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((4,), 0.25), atol=1e-5, rtol=0)
    cosine = torch.cosine_similarity(moved.flatten(1), -gradient.flatten(1), dim=1)
    torch.testing.assert_close(cosine, torch.ones(4), atol=1e-4, rtol=0)


def test_step_has_the_asked_length_over_each_token() -> None:
    text, gradient = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    gradient[0, 2] = 0
    moved = normalised_gradient_step(text, gradient, 0.25, norm="token") - text
    length = torch.full((2, 5), 0.25)
    length[0, 2] = 0
    torch.testing.assert_close(moved.norm(dim=2), length, atol=1e-5, rtol=0)
    cosine = torch.cosine_similarity(moved, -gradient, dim=2)
    torch.testing.assert_close(cosine, (length > 0).float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["global", "token"])
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_no_gradient_leaves_the_text_unchanged(norm: str, value: float) -> None:
    text, gradient = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    gradient[0] = value
    moved = normalised_gradient_step(text, gradient, 0.25, norm)  # type: ignore[arg-type]
    assert torch.equal(moved[0], text[0])
    assert (moved[1] - text[1]).norm() > 0.2


def test_a_guide_that_is_certain_gives_no_gradient(generator: ExpressionGenerator) -> None:
    state = mid_state(generator)

    def certain(image: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(wanted(state), 3) * 1e4 + 0 * image.mean((1, 2, 3))[:, None]

    gradient, loss, _ = guidance_gradient(state, certain, wanted(state))
    assert not gradient.any() and not loss.any()
    assert torch.equal(normalised_gradient_step(state.text, gradient, 1.0), state.text)


# ---------------------------------------------------------------- where there are no gradients


def test_gradients_are_there_inside_no_grad(generator: ExpressionGenerator, guide: ExpressionClassifier) -> None:
    state = mid_state(generator)
    with torch.no_grad():
        gradient, _, _ = guidance_gradient(state, guide, wanted(state))
    assert gradient.abs().amax() > 0


def test_inference_mode_is_a_clear_error(generator: ExpressionGenerator, guide: ExpressionClassifier) -> None:
    state = mid_state(generator)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"set trainer\.inference_mode to false"):
        guidance_gradient(state, guide, wanted(state))
