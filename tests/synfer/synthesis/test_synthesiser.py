"""What any synthesiser must do, whatever it is made of: add a folder of another kind to :func:`folders`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.rows.source_faces import TrainingSources
from synfer.faces.action_units import ACTION_UNITS
from synfer.synthesis import synthesiser as seam
from synfer.synthesis.faces import Faces
from synfer.synthesis.over_ranks import share_of, synthesise_over_ranks
from synfer.synthesis.plan import EvenPlan
from synfer.synthesis.request import SamplingSettings, SynthesisRequest
from synfer.synthesis.synthesiser import Synthesiser, TakesSources, changed_settings, load_synthesiser
from synfer.synthesis.vae_gan.perturbation import PerturbationSettings
from tests.fixtures.drawn_synthesiser import LOADER, save_drawn
from tests.fixtures.tiny_augmenter import tiny_augmenter
from tests.fixtures.tiny_data import tiny_table
from tests.fixtures.tiny_generator import NAMES, SIDE, scaled_weights, tiny_generator

FAST = SamplingSettings(num_steps=2, guidance_scale=1.0)
ROUNDING = {"drawn": 0, "diffusion": 1, "vae_gan": 1}
"""How far pixels of the same face may lie apart in batches of other sizes, of 255."""
AU_NAMES: dict[str, tuple[str, ...]] = {"drawn": ACTION_UNITS, "diffusion": ACTION_UNITS, "vae_gan": ()}
"""Action units that each kind takes."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind → a saved synthesiser."""
    folder = tmp_path_factory.mktemp("synthesisers")
    save_drawn(folder / "drawn", NAMES, 32)
    scaled_weights(tiny_generator(sampling=FAST)).save_trained(folder / "diffusion")
    tiny_augmenter(perturbation={"strength": 2.0}).save_trained(folder / "vae_gan")
    return {kind: folder / kind for kind in ROUNDING}


@pytest.fixture(params=ROUNDING)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(seam.SYNTHESISERS, "drawn", LOADER)
    return request.param


@pytest.fixture
def synthesiser(kind: str, folders: dict[str, Path]) -> Synthesiser:
    return loaded(folders[kind])


def loaded(folder: Path) -> Synthesiser:
    """Loads a synthesiser and gives it faces to begin with, where it makes its own of others."""
    synthesiser = load_synthesiser(folder)
    if isinstance(synthesiser, TakesSources):
        table = tiny_table(30, side=SIDE, label_space=NAMES)
        synthesiser.use_sources(TrainingSources(table, [], "source face"), NAMES)
    return synthesiser


def request(synthesiser: Synthesiser, count: int = 5, seed: int = 3) -> SynthesisRequest:
    return EvenPlan(count, NAMES, seed, au_names=synthesiser.au_names).request(range(count))


class Note:
    """A hook on finished faces that notes its turn."""

    def __init__(self, calls: list[str], name: str) -> None:
        self.calls, self.name = calls, name

    def on_faces(self, faces: Faces) -> None:
        self.calls.append(self.name)
        faces.kept = faces.kept & (faces.label != 1)


class Steering(Note):
    """A hook on denoising."""

    config_group = "layout"

    def on_denoising_start(self, state: Any) -> None:
        self.calls.append("start")

    def on_denoising_step(self, state: Any) -> None:
        self.calls.append(f"step {state.step}")


# ---------------------------------------------------------------- every kind


def test_it_says_what_it_can_make(kind: str, synthesiser: Synthesiser) -> None:
    assert isinstance(synthesiser, Synthesiser) and synthesiser.label_space == NAMES
    assert synthesiser.au_names == AU_NAMES[kind] and synthesiser.sampling.au_edits == {}
    assert len(synthesiser.weights_fingerprint()) == 16
    assert synthesiser.to("cpu") is synthesiser


def test_faces_are_as_asked_until_a_hook_says_otherwise(synthesiser: Synthesiser) -> None:
    asked = request(synthesiser)
    faces = synthesiser.synthesise(asked)
    side = synthesiser.image_size
    assert faces.images.shape == (5, 3, side, side) and faces.images.dtype == torch.uint8 and len(faces) == 5
    assert [faces.label_space[k] for k in faces.label] == list(asked.expressions) and faces.request is asked
    assert torch.equal(faces.soft_label.argmax(1), faces.label) and (faces.soft_label.sum(1) == 1).all()
    assert faces.kept.all() and faces.votes == {}
    assert [bool(source) for source in faces.layout_source] == [isinstance(synthesiser, TakesSources)] * 5


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_face_is_the_same_whatever_the_batch(batch_size: int, kind: str, synthesiser: Synthesiser) -> None:
    asked = request(synthesiser)
    whole = synthesiser.synthesise(asked).images.int()
    parts = [synthesiser.synthesise(asked.part(i, i + batch_size)).images.int() for i in range(0, 5, batch_size)]
    assert (torch.cat(parts) - whole).abs().amax() <= ROUNDING[kind]
    assert (synthesiser.synthesise(request(synthesiser, seed=4)).images.int() - whole).abs().amax() > 10


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_a_face_is_the_same_whatever_the_number_of_ranks(world_size: int, kind: str, synthesiser: Synthesiser) -> None:
    asked = request(synthesiser)
    shares = [share_of(asked, rank, world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1  # gathering needs equal shapes
    images = torch.cat([synthesiser.synthesise(share).images for share in shares])[: len(asked)].int()
    assert (images - synthesiser.synthesise(asked).images.int()).abs().amax() <= ROUNDING[kind]
    assert sum((share.sample_ids for share in shares), ())[: len(asked)] == asked.sample_ids


def one_rank(rank: int, folder: str, saved: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        synthesiser = loaded(Path(saved))
        made = synthesise_over_ranks(synthesiser, request(synthesiser), [Note([], "")], batch_size=2)
        torch.save(made, f"{folder}/rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_make_what_one_makes(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(one_rank, (str(tmp_path), str(folders[kind])), nprocs=2, start_method="fork")
    synthesiser = loaded(folders[kind])
    alone = synthesise_over_ranks(synthesiser, request(synthesiser), [Note([], "")], batch_size=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found.keys() == alone.keys()
        assert (found.pop("images").int() - alone["images"].int()).abs().amax() <= ROUNDING[kind]
        assert all(torch.equal(column, alone[name]) for name, column in found.items())
    assert alone["kept"].tolist() == [True, False, True, True, False]


def test_hooks_see_the_finished_faces_in_order(synthesiser: Synthesiser) -> None:
    calls: list[str] = []
    faces = synthesiser.synthesise(request(synthesiser), [Note(calls, "first"), Note(calls, "second")])
    assert calls == ["first", "second"] and faces.kept.tolist() == [True, False, True, True, False]


def test_a_hook_on_denoising_acts_or_is_refused(kind: str, synthesiser: Synthesiser) -> None:
    calls: list[str] = []
    hooks = [Note(calls, "first"), Steering(calls, "last")]
    if kind == "diffusion":
        synthesiser.synthesise(request(synthesiser), hooks)
        assert calls == ["start", "step 0", "step 1", "first", "last"]
        return
    with pytest.raises(ValueError, match=r"^layout.enabled=true: found Steering, .* beside [A-Za-z]+, which do"):
        synthesiser.synthesise(request(synthesiser), hooks)
    assert not calls


def test_what_it_cannot_make_is_refused(synthesiser: Synthesiser) -> None:
    fear = EvenPlan(1, ["fear"], 0, au_names=synthesiser.au_names).request([0])
    with pytest.raises(ValueError, match=r"cannot synthesise 'fear': the generator knows neutral, happy, sad"):
        synthesiser.synthesise(fear)
    units = np.zeros((1, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=rf"request has 3 action units, the generator {len(synthesiser.au_names)}"):
        synthesiser.synthesise(SynthesisRequest(("sad",), (0,), 0, ("",), units))


def test_settings_of_another_kind_are_refused(synthesiser: Synthesiser) -> None:
    others = [
        settings for settings in (FAST, PerturbationSettings()) if type(settings) is not type(synthesiser.sampling)
    ]
    for settings in others:
        asked = EvenPlan(1, NAMES, 0, settings, synthesiser.au_names).request([0])
        with pytest.raises(
            ValueError, match=r"^synthesis settings: found \w+Settings for a \w+, expected \w+Settings "
        ):
            synthesiser.synthesise(asked)


CHANGES: dict[str, dict[str, Any]] = {
    "drawn": {"num_steps": 7},
    "diffusion": {"num_steps": 7},
    "vae_gan": {"strength": 0.5, "mode": "interpolate"},
}


def test_some_of_its_own_settings_are_replaced_by_name(kind: str, synthesiser: Synthesiser) -> None:
    changed = changed_settings(synthesiser, CHANGES[kind], "synthesis.settings")
    assert type(changed) is type(synthesiser.sampling) and changed != synthesiser.sampling
    assert all(getattr(changed, name) == value for name, value in CHANGES[kind].items())
    with pytest.raises(ValueError, match=r"^synthesis.settings: found 'strenght' for a \w+, expected some of \w+, \w+"):
        changed_settings(synthesiser, {"strenght": 1}, "synthesis.settings")
    first = next(iter(CHANGES[kind]))
    for wrong in (-1, "much"):
        with pytest.raises(ValueError, match=rf"^synthesis.settings {{'{first}': .*}}: "):
            changed_settings(synthesiser, {first: wrong}, "synthesis.settings")


# ---------------------------------------------------------------- loading


def test_an_unknown_kind_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"kind": "gan"}))
    with pytest.raises(ValueError, match=r"^synthesiser '.*': found the kind 'gan', expected one of diffusion"):
        load_synthesiser(tmp_path)


def test_what_says_nothing_of_its_kind_is_a_diffusion_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"generator checkpoint: no file at .*nowhere"):
        load_synthesiser(tmp_path / "nowhere")
    (tmp_path / "noise.ckpt").write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"generator checkpoint .*noise.ckpt cannot be read"):
        load_synthesiser(tmp_path / "noise.ckpt")
    torch.save({"kind": "gan"}, tmp_path / "gan.ckpt")
    with pytest.raises(ValueError, match=r"found the kind 'gan'"):
        load_synthesiser(tmp_path / "gan.ckpt")
