from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from synfer.faces.action_units import ACTION_UNITS, FACS_PROTOTYPES, action_unit_indices
from synfer.synthesis.request import SamplingSettings, SynthesisRequest, initial_noise


def request(names: list[str], ids: Any = None, seed: int = 3, **changes: Any) -> SynthesisRequest:
    return SynthesisRequest.from_expressions(names, range(len(names)) if ids is None else ids, seed, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "sampling.num_steps: found 0"),
        ({"guidance_scale": 0.5}, "sampling.guidance_scale: found 0.5"),
        ({"au_scale": -1.0}, "sampling.au_scale: found -1"),
        ({"scheduler": "euler"}, "sampling.scheduler: found 'euler'"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**changes)


def test_names_are_made_canonical_and_captions_follow() -> None:
    made = request(["Happiness", "angry"])
    assert made.expressions == ("happy", "anger")
    assert made.captions == (
        "a photo of a face with a happy expression",
        "a photo of a face with a angry expression",
    )
    assert len(made) == 2 and made.sample_ids == (0, 1)


def test_action_units_come_from_the_prototype_of_the_expression() -> None:
    made = request(["happy", "neutral", "contempt"] * 4)
    assert made.action_units.shape == (12, len(ACTION_UNITS)) and made.action_units.dtype == np.float32
    for name, row in zip(made.expressions, made.action_units, strict=True):
        prototype = FACS_PROTOTYPES[name]
        acting = {ACTION_UNITS[i] for i in np.flatnonzero(row)}
        assert set(prototype.core) <= acting <= {*prototype.core, *prototype.often}
    assert len({tuple(row) for row in made.action_units[::3]}) == 4  # people differ


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    together = request(["happy", "sad", "fear"], [7, 8, 9])
    alone = request(["sad"], [8])
    assert np.array_equal(together.action_units[1], alone.action_units[0])
    assert torch.equal(initial_noise(together, (4, 2, 2))[1], initial_noise(alone, (4, 2, 2))[0])


def test_noise_is_keyed_by_seed_and_sample_id() -> None:
    shape = (4, 6, 6)
    noise = initial_noise(request(["happy"] * 3, [0, 1, (1 << 40) + 1]), shape)
    assert noise.shape == (3, *shape) and noise.dtype == torch.float32
    assert all((noise[i] - noise[j]).abs().amax() > 0.1 for i, j in ((0, 1), (1, 2), (0, 2)))
    assert torch.equal(noise, initial_noise(request(["sad"] * 3, [0, 1, (1 << 40) + 1]), shape))
    assert (noise - initial_noise(request(["happy"] * 3, [0, 1, (1 << 40) + 1], seed=4), shape)).abs().amax() > 0.1
    many = initial_noise(request(["happy"] * 100), shape)
    assert abs(float(many.mean())) < 0.05 and abs(float(many.std()) - 1) < 0.05


def test_global_random_state_plays_no_part() -> None:
    torch.manual_seed(1)
    first = initial_noise(request(["happy"]), (2, 2, 2))
    state = torch.get_rng_state()
    assert torch.equal(first, initial_noise(request(["happy"]), (2, 2, 2)))
    assert torch.equal(state, torch.get_rng_state())


def test_action_units_are_edited_by_name() -> None:
    plain = request(["happy", "sad"])
    edited = request(["happy", "sad"], au_edits={"AU12": 0.25, "AUL4": 1.0})
    columns = action_unit_indices(["AU12", "AUL4"])
    assert (edited.action_units[:, columns] == np.array([0.25, 1.0], dtype=np.float32)).all()
    others = np.setdiff1d(np.arange(len(ACTION_UNITS)), columns)
    assert np.array_equal(edited.action_units[:, others], plain.action_units[:, others])


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_an_edit_outside_the_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"au_edits 'AU12': found .*expected an intensity in \[0, 1\]"):
        request(["happy"], au_edits={"AU12": value})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown expression 'bored': expected one of neutral"):
        request(["happy", "bored"])
    with pytest.raises(ValueError, match=r"unknown action unit 'AU99': expected one of AU1"):
        request(["happy"], au_edits={"AU99": 0.5})


def test_lists_of_different_length_are_refused() -> None:
    units = np.zeros((2, len(ACTION_UNITS)), dtype=np.float32)
    with pytest.raises(ValueError, match=r"1 sample_ids for 2 expressions"):
        SynthesisRequest(("happy", "sad"), (1,), 0, ("", ""), units)
    with pytest.raises(ValueError, match=r"2 action_units for 1 expressions"):
        SynthesisRequest(("happy",), (1,), 0, ("",), units)
    with pytest.raises(ValueError, match="empty synthesis request"):
        SynthesisRequest((), (), 0, (), units[:0])


def test_a_part_keeps_every_column() -> None:
    whole = request(["happy", "sad", "fear", "anger"], [4, 5, 6, 7], settings=SamplingSettings(num_steps=3))
    part = whole.part(1, 3)
    assert part.expressions == ("sad", "fear") and part.sample_ids == (5, 6)
    assert part.captions == whole.captions[1:3] and part.seed == whole.seed and part.settings is whole.settings
    assert np.array_equal(part.action_units, whole.action_units[1:3])
    assert len(whole.part(3, 9)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_interval": (0.5, 0.5)}, r"guidance_interval: found \[0.5, 0.5\], expected 0 ≤ start < end"),
        ({"guidance_interval": (-0.1, 0.5)}, r"guidance_interval"),
        ({"guidance_interval": (0.0, 1.1)}, r"guidance_interval"),
        ({"au_edits": {"AU12": 1.2}}, r"sampling.au_edits 'AU12': found 1.2, expected an intensity"),
        ({"au_edits": {"AU99": 0.2}}, r"unknown action unit 'AU99'"),
    ],
)
def test_interval_and_edits_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**changes)


def test_edits_of_the_settings_reach_the_request() -> None:
    edited = request(["sad", "happy"], settings=SamplingSettings(au_edits={"AU12": 0.8}))
    plain = request(["sad", "happy"])
    column = ACTION_UNITS.index("AU12")
    assert edited.action_units[:, column].tolist() == pytest.approx([0.8, 0.8])
    others = [i for i in range(len(ACTION_UNITS)) if i != column]
    assert np.array_equal(edited.action_units[:, others], plain.action_units[:, others], equal_nan=True)
