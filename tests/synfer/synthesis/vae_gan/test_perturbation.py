from __future__ import annotations

from typing import Any

import pytest

from synfer.synthesis.vae_gan.perturbation import PerturbationSettings


@pytest.mark.parametrize(
    ("settings", "of"),
    [
        ({}, "same"),
        ({"mode": "interpolate", "source": "same"}, "same"),
        ({"mode": "transfer"}, "any"),
        ({"mode": "transfer", "source": "neutral", "strength": 0}, "neutral"),
    ],
)
def test_which_faces_are_encoded(settings: dict[str, Any], of: str) -> None:
    assert PerturbationSettings(**settings).source_of == of and PerturbationSettings(**settings).au_edits == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": -0.1}, r"perturbation.strength: found -0.1, expected a number of at least 0"),
        ({"strength": float("nan")}, r"perturbation.strength: found nan, expected"),
        ({"mode": "rotate"}, r"perturbation.mode: found 'rotate', expected one of noise, interpolate, transfer"),
        ({"source": "smile"}, r"perturbation.source: found 'smile', expected one of same, any, neutral, happy, .*null"),
        ({"source": "any"}, r"perturbation.source: found 'any' with mode noise, expected same"),
        ({"mode": "interpolate", "source": "sad"}, r"perturbation.source: found 'sad' with mode interpolate"),
        ({"mode": "transfer", "source": "same"}, r"perturbation.source: found 'same' with mode transfer, expected any"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerturbationSettings(**settings)
