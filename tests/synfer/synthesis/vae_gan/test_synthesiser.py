from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.rows.source_faces import TrainingSources
from synfer.synthesis.plan import EvenPlan
from synfer.synthesis.request import SamplingSettings, SynthesisRequest
from synfer.synthesis.vae_gan.perturbation import PerturbationSettings
from synfer.synthesis.vae_gan.synthesiser import VAEGANSynthesiser
from tests.fixtures.tiny_augmenter import tiny_augmenter
from tests.fixtures.tiny_data import tiny_table
from tests.fixtures.tiny_generator import NAMES, SIDE


def sources(count: int = 30, **changes: Any) -> TrainingSources:
    return TrainingSources(tiny_table(count, side=SIDE, label_space=NAMES, **changes), [], "source face")


def synthesiser(names: Sequence[str] = NAMES, **settings: Any) -> VAEGANSynthesiser:
    made = tiny_augmenter(perturbation=settings).eval().requires_grad_(False).synthesiser
    made.use_sources(sources(), names)
    return made


def request(names: Sequence[str], settings: PerturbationSettings | None = None, seed: int = 3) -> SynthesisRequest:
    return SynthesisRequest.from_expressions(names, range(len(names)), seed, settings, ())


SIX = ["happy", "sad", "neutral", "happy", "sad", "sad"]


def rows_of(found: TrainingSources, ids: Sequence[str]) -> list[int]:
    return [found.table.sample_id.tolist().index(name) for name in ids]


# ---------------------------------------------------------------- sources


def test_faces_come_from_training_faces_of_the_wanted_expression() -> None:
    made = synthesiser().synthesise(request(SIX))
    rows = np.array(rows_of(sources(), made.layout_source))
    assert [NAMES[code] for code in sources().labels(rows)] == SIX == [NAMES[code] for code in made.label]
    assert np.isnan(made.request.action_units_of(("AU12",))).all()


def test_many_faces_of_a_class_use_all_of_its_sources() -> None:
    made = synthesiser().synthesise(request(["happy"] * 200))
    counts = np.unique(made.layout_source, return_counts=True)[1]
    assert len(counts) == 10 and counts.min() > 5


def test_strength_0_rebuilds_the_source_and_more_moves_away() -> None:
    found, plain = sources(), synthesiser(strength=0.0)
    made = plain.synthesise(request(SIX))
    rows = np.array(rows_of(found, made.layout_source))
    rebuilt = (plain.decode(plain.encode(found.images(rows))[0], SIX) + 1) / 2
    expected = (rebuilt.clamp(0, 1) * 255).round().to(torch.uint8)
    assert (made.images.int() - expected.int()).abs().amax() <= 1
    distances = []
    for strength in (0.5, 1.0, 4.0):
        moved = plain.synthesise(request(SIX, PerturbationSettings(strength=strength)))
        assert moved.layout_source == made.layout_source  # the same face at every strength
        distances.append(float((moved.images.float() - made.images.float()).abs().mean()))
    assert 0 < distances[0] < distances[1] < distances[2]


def test_noise_is_that_of_the_posterior() -> None:
    plain, found = synthesiser(), sources()
    codes, rows = plain._perturbed(request(["sad"] * 2000), PerturbationSettings(strength=2.0))
    mean, deviation = plain.encode(found.images(rows))
    noise = (codes - mean) / deviation
    assert float(noise.mean()) == pytest.approx(0, abs=0.03) and float(noise.std()) == pytest.approx(2, abs=0.03)


def test_interpolation_goes_to_another_face_of_the_class() -> None:
    whole = synthesiser(mode="interpolate", strength=1.0)
    codes, rows = whole._perturbed(request(["sad"] * 300), whole.sampling)
    of_class = sources().rows_of("sad")
    every = whole.encode(sources().images(of_class))[0]
    reached = of_class[torch.cdist(codes, every).argmin(1).numpy()]
    assert torch.cdist(codes, every).amin(1).amax() < 1e-3
    assert (reached != rows).all() and len(set(reached)) == 10


def test_transfer_adds_the_difference_of_the_mean_codes() -> None:
    moved = synthesiser(mode="transfer", strength=1.5, source="neutral")
    codes, rows = moved._perturbed(request(SIX), moved.sampling)
    shown = [NAMES[code] for code in sources().labels(rows)]
    for name, of in zip(SIX, shown, strict=True):  # what is neutral already has nowhere to go
        assert of == "neutral" if name != "neutral" else of != "neutral"
    every = {name: moved.encode(sources().images(sources().rows_of(name)))[0].mean(0) for name in NAMES}
    own = moved.encode(sources().images(rows))[0]
    direction = torch.stack([every[name] - every[of] for name, of in zip(SIX, shown, strict=True)])
    torch.testing.assert_close(codes, own + 1.5 * direction, atol=1e-4, rtol=1e-4)
    _, of_any = moved._perturbed(request(["sad"] * 200), PerturbationSettings("transfer"))
    assert {NAMES[code] for code in sources().labels(of_any)} == {"happy", "neutral"}


def test_a_source_is_encoded_once_until_the_weights_change() -> None:
    module = tiny_augmenter(perturbation={"mode": "transfer", "source": "neutral"})
    made, seen = module.synthesiser, []
    made.use_sources(sources(), NAMES)
    module.networks.encoder.register_forward_hook(lambda _, given, out: seen.append(len(given[0])))
    first = made.synthesise(request(SIX)).images
    assert sum(seen) == 30  # the mean code of each of the three classes takes all of its ten faces
    assert torch.equal(made.synthesise(request(SIX)).images, first) and sum(seen) == 30
    before = made._mean_code("sad").clone()
    with torch.no_grad():
        module.networks.encoder.output.bias += 1.0
    assert float((made._mean_code("sad") - before).abs().amin()) > 0.5 and sum(seen) == 40
    assert not torch.equal(made.synthesise(request(SIX)).images, first)


def test_codes_are_made_again_where_the_module_is_cast_or_moved() -> None:
    module = tiny_augmenter().eval().requires_grad_(False)
    made, seen = module.synthesiser, []
    made.use_sources(sources(), NAMES)
    module.networks.encoder.register_forward_hook(lambda _, given, out: seen.append(out[0].dtype))
    rows = np.arange(3)
    made.bf16 = True  # autocast: weights of any format take the same faces
    made.codes_of(rows)
    module.to(torch.bfloat16)  # past the synthesiser, as Lightning moves what it trains
    made.codes_of(rows)
    assert len(seen) == 2


def test_codes_are_made_again_after_a_step_of_a_fused_optimiser() -> None:
    module, step = tiny_augmenter(), [0]
    made = VAEGANSynthesiser(module.networks, NAMES, SIDE, PerturbationSettings(), False, lambda: step[0])
    made.use_sources(sources(), NAMES)
    rows = np.arange(3)
    before = made.codes_of(rows)[0].detach().clone()
    optimiser = torch.optim.AdamW(module.networks.encoder.parameters(), lr=0.1, fused=True)
    module.networks.encoder(made.as_input(sources().images(rows)))[0].sum().backward()
    optimiser.step()
    step[0] += 1
    assert (made.codes_of(rows)[0] - before).detach().abs().amax() > 0.1


def test_the_mean_of_an_expression_is_taken_once_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    moved, asked = synthesiser(mode="transfer", source="neutral"), []
    mean_code = moved._mean_code
    monkeypatch.setattr(moved, "_mean_code", lambda name: asked.append(name) or mean_code(name))
    moved.synthesise(request(SIX))
    assert sorted(asked) == sorted(NAMES)


def test_bfloat16_makes_about_the_same_faces() -> None:
    exact, rounded = synthesiser(), synthesiser()
    rounded.bf16 = True
    faces = rounded.synthesise(request(SIX))
    assert faces.number_format == torch.bfloat16
    difference = (faces.images.int() - exact.synthesise(request(SIX)).images.int()).abs()
    assert 0 < difference.amax() < 16


def test_grey_and_colour_sources_of_any_size() -> None:
    for changes in ({"grey": True}, {"grey": False}):
        made = tiny_augmenter().eval().synthesiser
        made.use_sources(TrainingSources(tiny_table(9, side=24, label_space=NAMES, **changes), [], "source"), NAMES)
        assert made.synthesise(request(SIX)).images.shape == (6, 3, SIDE, SIDE)


def test_the_recipe_names_the_sources() -> None:
    assert synthesiser().recipe() == {"sources": sources().fingerprint()}
    assert tiny_augmenter().synthesiser.recipe() == {}


def test_every_module_is_left_in_its_mode() -> None:
    module = tiny_augmenter()
    module.synthesiser.use_sources(sources(), NAMES)
    module.train()
    module.networks.encoder.body[0].eval()
    module.synthesise(request(SIX))
    assert not module.networks.encoder.body[0].training and module.networks.decoder.training


# ---------------------------------------------------------------- wrong input


def test_without_sources_nothing_is_made() -> None:
    with pytest.raises(ValueError, match=r"VAEGANSynthesiser: found no training faces to encode, expected use_sources"):
        tiny_augmenter().synthesiser.synthesise(request(SIX))


@pytest.mark.parametrize(
    ("settings", "counts", "message"),
    [
        ({}, {"happy": 0}, r"perturbation.mode=noise: found 0 training faces of 'happy', expected at least 1"),
        ({"mode": "interpolate"}, {"sad": 1}, r"perturbation.mode=interpolate: found 1 training faces of 'sad', .* 2"),
        ({"mode": "transfer", "source": "neutral"}, {"neutral": 0}, r"mode=transfer: found 0 training faces of 'neutr"),
        ({"mode": "transfer", "source": "fear"}, {}, r"mode=transfer: found 0 training faces of 'fear', expected"),
    ],
)
def test_an_expression_without_a_training_face(settings: dict[str, Any], counts: dict[str, int], message: str) -> None:
    table = tiny_table(30, side=SIDE, label_space=NAMES)
    for name, count in counts.items():
        rows = np.flatnonzero(table.label == NAMES.index(name))
        table = table.select(np.setdiff1d(np.arange(len(table)), rows[count:]))
    made = tiny_augmenter(perturbation=settings).synthesiser
    with pytest.raises(ValueError, match=message):
        made.use_sources(TrainingSources(table, [], "source face"), NAMES)


def test_settings_of_a_diffusion_model_are_refused() -> None:
    asked = EvenPlan(3, NAMES, 1, SamplingSettings(), ()).request(range(3))
    with pytest.raises(ValueError, match=r"found SamplingSettings for a VAEGANSynthesiser, expected PerturbationSetti"):
        synthesiser().synthesise(asked)


def test_weights_that_are_no_numbers_make_no_faces() -> None:
    module = tiny_augmenter().requires_grad_(False)
    module.synthesiser.use_sources(sources(), NAMES)
    module.networks.decoder.output.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"generated face 0 \(seed 3\) .*1 weights .*'decoder.output.bias'"):
        module.synthesise(request(SIX))
