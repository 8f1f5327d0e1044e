"""The text between neutral and the expression, and beyond."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_modules.generator import ExpressionGenerator
from synfer.faces.captions import caption_for
from synfer.synthesis.diffusion.expression_strength import strengthened_text
from synfer.synthesis.request import SamplingSettings, SynthesisRequest
from synfer.synthesis.synthesiser import changed_settings
from tests.fixtures.tiny_generator import scaled_weights, tiny_generator

EXPRESSIONS = ("happy", "sad", "happy")


@pytest.fixture(scope="module")
def speaking() -> ExpressionGenerator:
    """A generator whose text speaks loudly."""
    return scaled_weights(tiny_generator(label_space=["neutral", "happy", "sad"]), 4.0)


def asked(strength: float | None, expressions: Sequence[str] = EXPRESSIONS, **changes: Any) -> SynthesisRequest:
    given = {} if strength is None else {"expression_strength": strength}
    settings = SamplingSettings(num_steps=2, au_scale=0.0, **given)
    made = SynthesisRequest.from_expressions(expressions, range(len(expressions)), 3, settings)
    return SynthesisRequest(**{**vars(made), **changes})


def text_of(generator: ExpressionGenerator, request: SynthesisRequest) -> torch.Tensor:
    with torch.no_grad():
        return generator.eval().synthesiser.start(request).text


def test_1_is_what_was_without_the_setting_to_the_last_bit(speaking: ExpressionGenerator) -> None:
    calls: list[list[str]] = []

    def encode(captions: list[str]) -> torch.Tensor:
        calls.append(captions)
        return torch.zeros(len(captions), 2, 2)

    text = torch.rand(3, 2, 2)
    assert strengthened_text(text, ["x"] * 3, EXPRESSIONS, 1.0, encode) is text and not calls
    assert torch.equal(text_of(speaking, asked(1.0)), speaking.synthesiser.encode_text(list(asked(None).captions)))
    without, with_it = (speaking.synthesise(asked(strength)).images for strength in (None, 1.0))
    assert torch.equal(without, with_it)


def test_0_asks_for_a_neutral_face(speaking: ExpressionGenerator) -> None:
    neutral = asked(None, captions=(caption_for("neutral"),) * 3)
    assert torch.allclose(text_of(speaking, asked(0.0)), text_of(speaking, neutral), atol=1e-6)
    zero, of_neutral, whole = (speaking.synthesise(made).images.int() for made in (asked(0.0), neutral, asked(1.0)))
    assert (zero - of_neutral).abs().amax() <= 1
    assert (zero - whole).abs().amax() > 10


def test_the_text_moves_evenly_and_goes_on_beyond_1(speaking: ExpressionGenerator) -> None:
    start, whole = text_of(speaking, asked(0.0)), text_of(speaking, asked(1.0))
    far = (whole - start).flatten(1).norm(dim=1)
    assert (far > 0.1).all()
    for strength in (0.25, 0.5, 0.75, 1.5, 3.0):
        moved = (text_of(speaking, asked(strength)) - start).flatten(1)
        torch.testing.assert_close(moved.norm(dim=1), strength * far, rtol=1e-4, atol=1e-5)
        along = torch.nn.functional.cosine_similarity(moved, (whole - start).flatten(1))
        assert (along > 0.9999).all()


def test_a_neutral_face_stays_as_it_is_and_the_negative_prompt_too(speaking: ExpressionGenerator) -> None:
    states = [speaking.eval().synthesiser.start(asked(s, ["neutral", "happy"])) for s in (0.0, 1.0, 2.0)]
    for state in states:
        assert torch.allclose(state.text[0], states[1].text[0], atol=1e-6)
        assert torch.allclose(state.null_text, states[1].null_text, atol=1e-6)
        assert torch.equal(state.au, states[1].au)


def test_captions_of_ones_own_keep_what_else_they_say() -> None:
    seen: list[str] = []

    def encode(captions: list[str]) -> torch.Tensor:
        seen.extend(captions)
        return torch.zeros(len(captions), 1, 1)

    captions = ["An angry old woman with a Happy dog", "an ANGRY, bearded man"]
    found = strengthened_text(torch.ones(2, 1, 1), captions, ["anger", "anger"], 0.5, encode)
    assert seen == ["A neutral old woman with a Happy dog", "a neutral, bearded man"]
    assert (found == 0.5).all()


def test_a_caption_without_its_expression_is_refused_before_anything_is_made(speaking: ExpressionGenerator) -> None:
    made = asked(1.5, captions=("a happy face", "a woman at the sea", "a happy face"))
    message = (
        r"sampling\.expression_strength 1\.5: found the caption 'a woman at the sea' of a face that is to be sad, "
        r"expected one with that word, or strength 1"
    )
    with pytest.raises(ValueError, match=message):
        speaking.synthesise(made)
    assert len(speaking.synthesise(asked(1.0, captions=made.captions)).images) == 3


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_strengths_that_mean_nothing(value: float) -> None:
    with pytest.raises(ValueError, match=r"sampling\.expression_strength: found .*, expected a number of at least 0"):
        SamplingSettings(expression_strength=value)


def test_settings_and_command_line_reach_it(tmp_path: Path, speaking: ExpressionGenerator) -> None:
    changed = changed_settings(speaking, {"expression_strength": 0.5}, "synthesis.settings")
    assert isinstance(changed, SamplingSettings) and changed.expression_strength == 0.5
    request = asked(None).under(changed)
    middle = text_of(speaking, request)
    np.testing.assert_allclose(middle, text_of(speaking, asked(0.5)), atol=1e-6)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ExpressionGenerator, "model", fail_untyped=False)
    parsed = parser.parse_args(["--model.sampling.expression_strength=1.5"])
    assert parsed.model.sampling.expression_strength == 1.5
    strong = tiny_generator(sampling=SamplingSettings(expression_strength=1.5))
    strong.save_trained(tmp_path)
    assert ExpressionGenerator.load_trained(tmp_path).sampling.expression_strength == 1.5


def test_a_vae_gan_has_a_strength_of_its_own() -> None:
    from tests.fixtures.tiny_augmenter import tiny_augmenter

    with pytest.raises(ValueError, match=r"synthesis\.settings: found 'expression_strength' for a SemanticAugmenter"):
        changed_settings(tiny_augmenter(), {"expression_strength": 0.5}, "synthesis.settings")
