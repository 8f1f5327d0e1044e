"""What a face is asked for in words: with its expression, or without it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from synfer.synthesis.conditions import asked_captions
from synfer.synthesis.request import SamplingSettings, SynthesisRequest
from tests.fixtures.tiny_generator import NAMES, scaled_weights, tiny_generator

SILENT = SamplingSettings(num_steps=2, mention_expression=False)


def test_captions_stay_where_the_settings_say_nothing() -> None:
    for settings in (None, SamplingSettings(), object()):
        assert asked_captions(["a sad face", "x"], settings) == ("a sad face", "x")
    assert asked_captions(["a sad man", "he smiles", "x"], SILENT) == ("a man", "a photo of a face", "x")


def test_a_request_is_made_without_the_expression_however_it_comes_by_its_settings() -> None:
    named = SynthesisRequest.from_expressions(NAMES, range(3), 1)
    made = SynthesisRequest.from_expressions(NAMES, range(3), 1, SILENT)
    assert made.captions == named.under(SILENT).captions == ("a photo of a face",) * 3
    assert made.expressions == named.expressions and (made.action_units == named.action_units).all()
    generator = scaled_weights(tiny_generator(label_space=list(NAMES), sampling=SILENT))
    own = replace(named, settings=None)
    with torch.no_grad():
        asked, expected = (generator.eval().synthesiser.start(request).text for request in (own, made))
        said = generator.synthesiser.start(named.under(replace(SILENT, mention_expression=True))).text
    assert torch.equal(asked, expected) and not torch.equal(asked, said)


def test_strength_is_of_a_text_that_says_the_expression() -> None:
    with pytest.raises(ValueError, match=r"sampling\.expression_strength: found 0\.5 with mention_expression=false"):
        SamplingSettings(mention_expression=False, expression_strength=0.5)
