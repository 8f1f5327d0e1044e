from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.synthesis.semantic_guidance import SemanticGuidance
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.diffusion.denoising import denoise
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from tests.fixtures.outside_models import save_timm
from tests.fixtures.tiny_generator import (
    NAMES,
    opinionated_classifier,
    request_for,
    save_checkpoint,
    scaled_weights,
    state_for,
    tiny_classifier,
    tiny_generator,
)

MANY = ["happy", "sad", "neutral"] * 5


@pytest.fixture(scope="module")
def generator() -> ExpressionGenerator:
    return scaled_weights(tiny_generator()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_checkpoint(opinionated_classifier(), tmp_path_factory.mktemp("guide") / "x.ckpt"))


def guidance(guide: str, **settings: Any) -> SemanticGuidance:
    return SemanticGuidance(True, guide, **{"start_step": 0, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": 0.0}, r"guidance.step_size: found 0"),
        ({"start_step": -1}, r"expected 0 ≤ start < end"),
        ({"start_step": 5, "end_step": 5}, r"start_step 5 and end_step 5"),
        ({"every": 0}, r"guidance.every: found 0"),
        ({"enabled": True}, r"guidance.guide: found none"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticGuidance(**settings)


def test_a_missing_guide_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"guidance.guide '.*nowhere.ckpt'"):
        SemanticGuidance(True, str(tmp_path / "nowhere.ckpt"))


# ---------------------------------------------------------------- when


def trainer_with(inference_mode: bool) -> Any:
    loop = SimpleNamespace(inference_mode=inference_mode)
    return SimpleNamespace(test_loop=loop, predict_loop=loop, validate_loop=loop)


@pytest.mark.parametrize("stage", ["test", "predict", "validate"])
def test_inference_mode_is_refused_before_anything_is_made(stage: str, guide: str) -> None:
    with pytest.raises(ValueError, match=f"enabled=true in {stage} needs gradients.*--trainer.inference_mode=false"):
        guidance(guide).setup(trainer_with(True), tiny_classifier(), stage)
    guidance(guide).setup(trainer_with(False), tiny_classifier(), stage)
    SemanticGuidance(False).setup(trainer_with(True), tiny_classifier(), stage)


def test_in_a_fit_there_are_gradients_whatever_the_setting(guide: str) -> None:
    callback = guidance(guide)
    callback.setup(trainer_with(True), tiny_classifier(), "fit")
    assert callback._guide is not None and not callback._guide.training


def guided_steps(generator: ExpressionGenerator, callback: SemanticGuidance, first_step: int = 0) -> list[int]:
    """Returns the steps at which the text moves."""
    state = state_for(generator, request_for(["happy"], num_steps=10))
    state.first_step = first_step
    callback.on_denoising_start(state)
    moved = []
    for step in range(first_step, 10):
        state.step, before = step, state.text
        callback.on_denoising_step(state)
        if not torch.equal(before, state.text):
            moved.append(step)
    return moved


@pytest.mark.parametrize(
    ("settings", "first_step", "steps"),
    [
        ({}, 0, list(range(10))),
        ({"start_step": 4}, 0, [4, 5, 6, 7, 8, 9]),
        ({"start_step": 4}, 3, [7, 8, 9]),  # counted from the first step that is run
        ({"start_step": 2, "end_step": 5}, 0, [2, 3, 4]),
        ({"start_step": 1, "every": 3}, 0, [1, 4, 7]),
        ({"start_step": 30}, 0, []),
    ],
)
def test_steps_that_are_guided(
    settings: dict[str, Any], first_step: int, steps: list[int], guide: str, generator: ExpressionGenerator
) -> None:
    assert guided_steps(generator, guidance(guide, **settings), first_step) == steps


def test_a_guided_step_costs_one_pass_more_than_half_and_leaves_its_output(
    guide: str, generator: ExpressionGenerator
) -> None:
    passes: list[int] = []
    handle = generator.model.unet.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    generator.synthesise(request_for(["happy", "sad"], num_steps=3), [guidance(guide, start_step=1)])
    handle.remove()
    assert passes == [4, 2, 2, 2, 2]  # unguided: both halves at once; guided: conditional with, unconditional without


# ---------------------------------------------------------------- towards what


def moved_text(generator: ExpressionGenerator, callback: SemanticGuidance) -> tuple[DenoisingState, torch.Tensor]:
    state = state_for(generator, request_for(["happy", "sad", "neutral"], num_steps=10))
    state.step = 6
    before = state.text
    callback.on_denoising_start(state)
    callback.on_denoising_step(state)
    return state, state.text - before


def test_the_text_moves_by_the_step_size(guide: str, generator: ExpressionGenerator) -> None:
    state, moved = moved_text(generator, guidance(guide, step_size=0.3))
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((3,), 0.3), atol=1e-4, rtol=0)
    assert state.conditional_output is not None
    _, by_token = moved_text(generator, guidance(guide, step_size=0.3, norm="token"))
    torch.testing.assert_close(by_token.norm(dim=2), torch.full((3, 16), 0.3), atol=1e-4, rtol=0)


def test_the_guide_sees_more_of_what_was_asked_in_guided_faces(guide: str, generator: ExpressionGenerator) -> None:
    classifier = ExpressionClassifier.load_trained(guide)

    def intended(callbacks: list[SemanticGuidance]) -> torch.Tensor:
        result = generator.synthesise(request_for(MANY, num_steps=6), callbacks)
        probabilities = classifier.predict_probabilities(result.images.float() / 255)
        return probabilities.gather(1, result.label[:, None])[:, 0]

    plain, guided = intended([]), intended([guidance(guide, step_size=3.0)])
    assert (guided > plain).float().mean() >= 0.8
    assert guided.mean() > plain.mean() + 0.02


def test_classes_of_the_guide_go_by_name(guide: str, generator: ExpressionGenerator, tmp_path: Path) -> None:
    space = ("anger", "sad", "happy", "neutral")
    original, other = opinionated_classifier(), opinionated_classifier(space)
    trunk = {name: t for name, t in original.backbone.state_dict().items() if not name.startswith("head.")}
    other.backbone.load_state_dict(trunk, strict=False)
    source, target = original.backbone.get_classifier(), other.backbone.get_classifier()
    with torch.no_grad():
        target.weight[0], target.bias[0] = 0, -1e4  # never anger
        for row, name in enumerate(space[1:], start=1):
            target.weight[row], target.bias[row] = source.weight[NAMES.index(name)], source.bias[NAMES.index(name)]
    path = str(save_checkpoint(other, tmp_path / "other.ckpt"))
    _, expected = moved_text(generator, guidance(guide))
    _, moved = moved_text(generator, guidance(path))
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=1e-2)


def test_a_guide_that_does_not_know_a_requested_expression_is_refused(
    generator: ExpressionGenerator, tmp_path: Path
) -> None:
    path = str(save_checkpoint(opinionated_classifier(("neutral", "happy", "fear")), tmp_path / "x.ckpt"))
    with pytest.raises(ValueError, match=r"guidance.guide '.*x.ckpt' does not know 'sad': it has \['neutral', 'happy'"):
        generator.synthesise(request_for(["happy", "sad"]), [guidance(path)])
    generator.synthesise(request_for(["happy", "neutral"], num_steps=1), [guidance(path)])  # not asked, not missed


def test_losses_are_those_of_the_last_batch(guide: str, generator: ExpressionGenerator) -> None:
    callback = guidance(guide, start_step=2)
    for _ in range(2):
        generator.synthesise(request_for(num_steps=5), [callback])
        assert len(callback.losses) == 3 and all(loss > 0 for loss in callback.losses)


def test_a_guide_without_a_finite_loss_is_refused_and_guides_nobody_silently(
    guide: str, generator: ExpressionGenerator
) -> None:
    callback = guidance(guide, start_step=1)
    network: Any = callback.guide
    with torch.no_grad():
        network.backbone.get_classifier().bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"found a loss that is not finite at denoising step 1 of face 4, expected"):
        generator.synthesise(request_for(["happy", "sad"], first_id=4), [callback])


def test_guided_faces_do_not_depend_on_their_batch(guide: str, generator: ExpressionGenerator) -> None:
    request = request_for(MANY[:3], num_steps=3)
    whole = generator.synthesise(request, [guidance(guide)]).images.int()
    alone = [generator.synthesise(request.part(i, i + 1), [guidance(guide)]).images for i in range(3)]
    assert (torch.cat(alone).int() - whole).abs().float().mean() < 0.5


def test_the_guide_itself_learns_nothing(guide: str, generator: ExpressionGenerator) -> None:
    callback = guidance(guide)
    before = callback.guide_fingerprint()
    generator.synthesise(request_for(), [callback])
    assert callback.guide_fingerprint() == before == opinionated_classifier().weights_fingerprint()
    assert all(p.grad is None for p in callback.guide.parameters())
    assert SemanticGuidance(False, guide).guide_fingerprint() is None


# ---------------------------------------------------------------- whom, to what, for how long


def steps_and_text(
    generator: ExpressionGenerator, callback: SemanticGuidance, names: list[str], steps: int = 6
) -> tuple[torch.Tensor, DenoisingState]:
    """Denoises with a callback and returns how far each sample's text has moved."""
    state = state_for(generator, request_for(names, num_steps=steps))
    before = state.text.clone()
    callback.on_denoising_start(state)
    denoise(state, [callback])
    return (state.text - before).flatten(1).norm(dim=1), state


def test_only_the_chosen_expressions_are_guided(guide: str, generator: ExpressionGenerator) -> None:
    callback = guidance(guide, expressions=["sadness"])  # another name of sad
    moved, state = steps_and_text(generator, callback, ["happy", "sad", "neutral"])
    assert (moved > 0).tolist() == [False, True, False]
    assert callback.guided_passes == 6
    plain = state_for(generator, request_for(["happy", "sad", "neutral"], num_steps=6))
    expected = denoise(plain)
    torch.testing.assert_close(state.latents[[0, 2]], expected[[0, 2]], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(state.latents[1], expected[1], atol=1e-4)


def test_the_target_may_be_a_soft_label_of_other_expressions(guide: str, generator: ExpressionGenerator) -> None:
    classifier = ExpressionClassifier.load_trained(guide)

    def probability_of(name: str, **settings: Any) -> torch.Tensor:
        result = generator.synthesise(
            request_for(["happy"] * 12, num_steps=6), [guidance(guide, step_size=3.0, **settings)]
        )
        return classifier.predict_probabilities(result.images.float() / 255)[:, NAMES.index(name)].mean()

    assert probability_of("sad", targets={"happy": {"sad": 1.0}}) > probability_of("sad") + 0.02


@pytest.mark.parametrize("soft", [{}, {"happy": 0.5}, {"happy": 1.5, "sad": -0.5}])
def test_a_target_that_is_no_distribution_is_refused(soft: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"guidance.targets 'happy': found .*expected shares ≥ 0 that sum to 1"):
        SemanticGuidance(targets={"happy": soft})


def test_a_sample_that_the_guide_is_sure_of_pays_no_more(guide: str, generator: ExpressionGenerator) -> None:
    names = MANY
    always = guidance(guide)
    steps_and_text(generator, always, names)
    sometimes = guidance(guide, stop_above=0.5)
    moved, _ = steps_and_text(generator, sometimes, names)
    at_once = guidance(guide, stop_above=1e-9)
    unmoved, _ = steps_and_text(generator, at_once, names)
    assert always.guided_passes == 6 * len(names)
    assert len(names) < sometimes.guided_passes < always.guided_passes
    assert at_once.guided_passes == len(names) and not unmoved.any()
    assert (moved > 0).any()


@pytest.mark.parametrize("settings", [{"chunk": 2}, {"chunk": 1000}, {"gradient_checkpointing": True}])
def test_what_saves_memory_changes_nothing(
    settings: dict[str, Any], guide: str, generator: ExpressionGenerator
) -> None:
    _, expected = steps_and_text(generator, guidance(guide), MANY[:5], steps=3)
    _, state = steps_and_text(generator, guidance(guide, **settings), MANY[:5], steps=3)
    torch.testing.assert_close(state.latents, expected.latents, atol=1e-4, rtol=1e-4)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in generator.model.unet.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop_above": 0.0}, r"guidance.stop_above: found 0.0, expected a probability"),
        ({"stop_above": 1.2}, r"guidance.stop_above: found 1.2"),
        ({"chunk": 0}, r"guidance.chunk: found 0"),
        ({"expressions": ["hapy"]}, r"hapy"),
        ({"targets": {"happy": {"joyous": 1.0}}}, r"joyous"),
    ],
)
def test_options_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticGuidance(**settings)


# ---------------------------------------------------------------- through the latents


def through_latents(guide: str, **settings: Any) -> SemanticGuidance:
    return guidance(guide, **{"through": "latents", "latent_step_size": 3.0, **settings})


def test_through_the_latents_the_unet_runs_as_without_guidance(guide: str, generator: ExpressionGenerator) -> None:
    passes: list[tuple[int, bool]] = []
    handle = generator.model.unet.register_forward_pre_hook(
        lambda module, inputs: passes.append((len(inputs[0]), torch.is_grad_enabled()))
    )
    callback = through_latents(guide, start_step=1)
    state = state_for(generator, request_for(["happy", "sad"], num_steps=3))
    text = state.text.clone()
    callback.on_denoising_start(state)
    denoise(state, [callback])
    handle.remove()
    assert passes == [(4, False)] * 3 and callback.guided_passes == 4
    assert torch.equal(state.text, text)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm_solver++"])
def test_the_guide_sees_more_of_what_was_asked_through_the_latents(
    scheduler: str, guide: str, generator: ExpressionGenerator
) -> None:
    classifier = ExpressionClassifier.load_trained(guide)

    def intended(callbacks: list[SemanticGuidance]) -> torch.Tensor:
        result = generator.synthesise(request_for(MANY, num_steps=6, scheduler=scheduler), callbacks)
        probabilities = classifier.predict_probabilities(result.images.float() / 255)
        return probabilities.gather(1, result.label[:, None])[:, 0]

    plain, guided = intended([]), intended([through_latents(guide)])
    assert (guided > plain).float().mean() >= 0.8
    assert guided.mean() > plain.mean() + 0.02


def test_through_the_latents_faces_do_not_depend_on_their_batch(guide: str, generator: ExpressionGenerator) -> None:
    request = request_for(MANY[:3], num_steps=4)
    whole = generator.synthesise(request, [through_latents(guide, stop_above=0.6)]).images.int()
    alone = [
        generator.synthesise(request.part(i, i + 1), [through_latents(guide, stop_above=0.6)]).images for i in range(3)
    ]
    assert (torch.cat(alone).int() - whole).abs().float().mean() < 0.5
    chunked = generator.synthesise(request, [through_latents(guide, stop_above=0.6, chunk=2)]).images.int()
    assert (chunked - whole).abs().float().mean() < 0.5


def test_through_the_latents_only_whom_the_guide_is_not_sure_of_and_only_the_chosen(
    guide: str, generator: ExpressionGenerator
) -> None:
    def latents(*callbacks: SemanticGuidance) -> torch.Tensor:
        state = state_for(generator, request_for(["happy", "sad", "neutral"], num_steps=5))
        for callback in callbacks:
            callback.on_denoising_start(state)
        return denoise(state, list(callbacks))

    plain = latents()
    assert torch.equal(latents(through_latents(guide, stop_above=1e-9)), plain)
    assert torch.equal(latents(through_latents(guide, start_step=2, end_step=3, every=2, expressions=["fear"])), plain)
    chosen = latents(through_latents(guide, expressions=["sad"]))
    torch.testing.assert_close(chosen[[0, 2]], plain[[0, 2]], atol=0, rtol=0)
    assert not torch.allclose(chosen[1], plain[1], atol=1e-3)


def test_a_guide_on_latents_needs_no_decoder_through_the_latents(
    generator: ExpressionGenerator, tmp_path: Path
) -> None:
    callback = through_latents(latent_guide(generator, tmp_path))
    state = state_for(generator, request_for(["happy", "sad"], num_steps=4))
    plain = denoise(state_for(generator, request_for(["happy", "sad"], num_steps=4)))

    def refuse(latents: torch.Tensor) -> torch.Tensor:
        raise AssertionError("decoded")

    state.decode = refuse
    callback.on_denoising_start(state)
    assert not torch.allclose(denoise(state, [callback]), plain, atol=1e-3)


def test_a_broken_guide_is_named_through_the_latents_too(guide: str, generator: ExpressionGenerator) -> None:
    callback = through_latents(guide, start_step=1)
    network: Any = callback.guide
    with torch.no_grad():
        network.backbone.get_classifier().bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"found a loss that is not finite at denoising step 1 of face 4, expected"):
        generator.synthesise(request_for(["happy", "sad"], first_id=4), [callback])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"step_size": 6.0},
            r"guidance.step_size: found 6, a step of the text, with guidance.through=latents, expected",
        ),
        ({"latent_step_size": 0.0}, r"guidance.latent_step_size: found 0"),
        ({"norm": "token"}, r"guidance.norm: found token with guidance.through=latents, expected global"),
    ],
)
def test_a_step_of_the_text_is_not_taken_for_one_of_the_latents(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticGuidance(through="latents", **settings)


def test_the_record_of_a_set_says_what_was_moved(guide: str) -> None:
    text, latents = guidance(guide, step_size=2.0), through_latents(guide)
    assert text.recipe()["step_size"] == 2.0 and "through" not in text.recipe()  # sets of before go on
    assert latents.recipe()["through"] == "latents" and latents.recipe()["latent_step_size"] == 3.0
    assert "step_size" not in latents.recipe()
    assert "through the latents (step size 3," in latents.in_words()


# ---------------------------------------------------------------- the entropy term


@pytest.mark.parametrize("through", ["text", "latents"])
def test_a_guide_makes_up_its_mind_with_an_entropy_term_and_keeps_it_open_with_a_negative_one(
    through: str, guide: str, generator: ExpressionGenerator
) -> None:
    classifier = ExpressionClassifier.load_trained(guide)

    def entropy(weight: float) -> float:
        settings: dict[str, Any] = {"step_size": 3.0} if through == "text" else {"through": "latents"}
        callback = guidance(guide, entropy_weight=weight, **settings)
        images = generator.synthesise(request_for(MANY, num_steps=6), [callback]).images
        return float(torch.special.entr(classifier.predict_probabilities(images.float() / 255)).sum(1).mean())

    sharpened, plain, opened = entropy(5.0), entropy(0.0), entropy(-5.0)
    assert sharpened < plain - 0.01 and opened > plain + 0.01


def test_the_entropy_weight_is_told_and_recorded_where_it_acts(guide: str) -> None:
    assert "entropy_weight" not in guidance(guide).recipe()  # sets of before go on
    weighted = guidance(guide, entropy_weight=0.5)
    assert weighted.recipe()["entropy_weight"] == 0.5 and "entropy weight 0.5" in weighted.in_words()
    with pytest.raises(ValueError, match=r"guidance.entropy_weight: found nan, expected a finite number"):
        SemanticGuidance(entropy_weight=float("nan"))


# ---------------------------------------------------------------- a guide on latents


def latent_guide(generator: ExpressionGenerator, folder: Path, **codec: Any) -> str:
    """Saves a guide that reads the latents of a generator like this one."""
    source = scaled_weights(tiny_generator(**({"codec_config": codec} if codec else {})))
    source.save_trained(folder / "generator")
    classifier = tiny_classifier(
        seed=3,
        latents_of=str(folder / "generator"),
        backbone="resnet18",
        backbone_kwargs={"block_args": {}, "channels": (8, 8, 8, 8)},
    )
    with torch.no_grad():
        classifier.backbone.get_classifier().weight.mul_(30)
    return str(save_checkpoint(classifier, folder / "latent.ckpt"))


def test_a_guide_on_latents_needs_no_decoder(
    generator: ExpressionGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = guidance(latent_guide(generator, tmp_path))
    state = state_for(generator, request_for(["happy", "sad"], num_steps=4))
    before = state.text.clone()

    def refuse(latents: torch.Tensor) -> torch.Tensor:
        raise AssertionError("decoded")

    state.decode = refuse
    callback.on_denoising_start(state)
    denoise(state, [callback])
    assert ((state.text - before).flatten(1).norm(dim=1) > 0).all()
    classifier = callback.guide
    image = torch.rand(2, 3, *[classifier.image_size] * 2)
    codec = generator.model.codec
    torch.testing.assert_close(classifier(image), classifier.forward_latents(codec.encode(image * 2 - 1)))


def test_a_guide_on_the_latents_of_another_codec_is_refused(generator: ExpressionGenerator, tmp_path: Path) -> None:
    path = latent_guide(generator, tmp_path, patch=4, channels=3, scaling_factor=1.5)
    with pytest.raises(ValueError, match=r"guidance.guide '.*latent.ckpt' reads latents of another codec"):
        generator.synthesise(request_for(["happy"]), [guidance(path)])


def test_a_classifier_of_pixels_has_no_latents(guide: str) -> None:
    with pytest.raises(ValueError, match=r"reads pixels, not latents"):
        ExpressionClassifier.load_trained(guide).forward_latents(torch.rand(1, 48, 4, 4))


def test_a_timm_network_with_named_classes_may_guide(generator: ExpressionGenerator, tmp_path: Path) -> None:
    folder = save_timm(tmp_path / "timm", ["happiness", "other", "sad", "neutral"])
    callback = guidance(str(folder))
    names = [name for name in NAMES if name in callback.guide.label_space]
    assert names
    moved, _ = steps_and_text(generator, callback, names, steps=3)
    assert (moved > 0).all() and callback.guide_fingerprint() == callback.guide.weights_fingerprint()


def test_a_guide_on_latents_remembers_its_codec(generator: ExpressionGenerator, tmp_path: Path) -> None:
    path = latent_guide(generator, tmp_path)
    other = tiny_generator(codec_config={"patch": 4, "channels": 3, "scaling_factor": 1.5})
    other.save_trained(tmp_path / "generator")  # trained anew in the same place
    with pytest.raises(ValueError, match=r"trained on the latents of another codec than that of .*generator' now"):
        ExpressionClassifier.load_trained(path)
