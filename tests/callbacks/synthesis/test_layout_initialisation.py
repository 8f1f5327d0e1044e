from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from callbacks.synthesis.layout_initialisation import LayoutInitialisation
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.near_copies import pixel_correlation
from datamodules.rows.sample_table import SampleTable
from datamodules.rows.source_faces import TrainingSources
from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from synfer.synthesis.faces import Faces
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import NAMES, SIDE, request_for, scaled_weights, state_for, tiny_generator

SIX = ["happy", "sad", "neutral"] * 2


@pytest.fixture(scope="module")
def generator() -> ExpressionGenerator:
    return scaled_weights(tiny_generator(), 2.0).eval()


def training_table(**changes: Any) -> SampleTable:
    return tiny_table(**{"count": 30, "side": SIDE, "label_space": NAMES, **changes})


def layout(table: SampleTable | None = None, **settings: Any) -> LayoutInitialisation:
    callback = LayoutInitialisation(True, **{"num_inverted": 3, **settings})
    callback.use_table(training_table() if table is None else table, [])
    return callback


def started(generator: ExpressionGenerator, callback: LayoutInitialisation, **request: Any) -> DenoisingState:
    state = state_for(generator, request_for(**{"expressions": SIX, "num_steps": 10, **request}))
    callback.on_denoising_start(state)
    return state


def sources(callback: LayoutInitialisation, state: DenoisingState) -> list[str]:
    """What finished faces are said to be laid out after."""
    n = len(state.request)
    faces = Faces.as_asked(state.request, torch.zeros(n, 3, SIDE, SIDE, dtype=torch.uint8), NAMES)
    callback.on_faces(faces)
    return faces.layout_source


# ---------------------------------------------------------------- what may be a source


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inverted": 0}, r"layout.num_inverted: found 0"),
        ({"fixed_point_iterations": -1}, r"layout.fixed_point_iterations: found -1"),
        ({"max_similarity": 0.0}, r"layout.max_similarity: found 0.0"),
        ({"max_similarity": 1.5}, r"layout.max_similarity: found 1.5"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayoutInitialisation(**settings)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_for_evaluation_is_refused_as_source(split: str) -> None:
    with pytest.raises(ValueError, match=f"layout source: found the {split} split, expected training images only"):
        LayoutInitialisation(True).use_table(training_table(split=split), [])


def with_duplicate(split: str) -> SampleTable:
    """A split whose row 2 has the pixels of training row 4."""
    table = training_table(split=split, count=6)
    hashes = table.content_hash.copy()
    hashes[2] = training_table().content_hash[4]
    return replace(table, content_hash=hashes)


def test_a_training_face_with_an_evaluation_duplicate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layout source.*data.drop_duplicates=true.*found val image 'val-2' \(1 val"):
        LayoutInitialisation(True).use_table(training_table(), [with_duplicate("val")])


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_duplicates_are_found_in_every_evaluation_split_whatever_the_stage(split: str, stage: str) -> None:
    def data(**changes: Any) -> ExpressionDataModule:
        tables = {name: training_table(split=name, count=6) for name in ("val", "test")}
        datamodule = ExpressionDataModule(
            TinyReader(**{"train": training_table(), **tables, split: with_duplicate(split)}), **changes
        )
        datamodule.setup(stage)
        return datamodule

    def set_up(datamodule: ExpressionDataModule) -> LayoutInitialisation:
        callback, trainer = LayoutInitialisation(True), SimpleNamespace(datamodule=datamodule)
        callback.setup(trainer, torch.nn.Module(), stage)  # type: ignore[arg-type]
        return callback

    with pytest.raises(ValueError, match=f"found {split} image '{split}-2'"):
        set_up(data())
    callback = set_up(data(drop_duplicates=True))
    assert callback._sources is not None and len(callback._sources) == 29


def test_nothing_is_read_while_it_is_off() -> None:
    trainer: Any = SimpleNamespace(datamodule=None)
    callback = LayoutInitialisation(False)
    callback.setup(trainer, torch.nn.Module(), "fit")  # type: ignore[arg-type]
    assert callback._sources is None


# ---------------------------------------------------------------- which face


def test_which_face_is_a_function_of_seed_and_sample_id(generator: ExpressionGenerator) -> None:
    callback = layout()
    whole = started(generator, callback)
    of_whole = sources(callback, whole)
    part = started(generator, callback, expressions=SIX[2:5], first_id=2)
    assert sources(callback, part) == of_whole[2:5]
    torch.testing.assert_close(part.latents, whole.latents[2:5], atol=1e-4, rtol=1e-4)
    assert sources(callback, started(generator, callback, seed=1)) != of_whole
    assert len(set(of_whole)) > 2
    assert set(of_whole) <= set(training_table().sample_id)


def test_sources_are_spread_over_the_table(generator: ExpressionGenerator) -> None:
    state: Any = SimpleNamespace(request=request_for(["happy"] * 600))
    rows = layout()._choose(state, training_table())
    counts = np.bincount(rows, minlength=30)
    assert len(counts) == 30 and counts.min() > 5 and counts.max() < 45


def test_source_of_the_same_expression(generator: ExpressionGenerator) -> None:
    callback = layout(source="same")
    state = started(generator, callback)
    label = dict(zip(training_table().sample_id, training_table().label, strict=True))
    assert [NAMES[label[source]] for source in sources(callback, state)] == SIX
    several: Any = SimpleNamespace(request=request_for(["happy"] * 100))
    assert len(set(layout(source="same")._choose(several, TrainingSources(training_table(), [], "")).tolist())) == 10


def test_no_face_of_the_expression_is_an_error(generator: ExpressionGenerator) -> None:
    table = training_table().select(np.flatnonzero(training_table().label != NAMES.index("sad")))
    with pytest.raises(ValueError, match=r"layout.source=same: found no training face of 'sad'"):
        started(generator, layout(table, source="same"))
    with pytest.raises(ValueError, match=r"found no training face of 'sad'"):
        started(generator, layout(training_table(label_space=("happy", "neutral", "fear")), source="same"))


# ---------------------------------------------------------------- the layout


def test_sampling_begins_where_the_inversion_ended(generator: ExpressionGenerator) -> None:
    noise = state_for(generator, request_for(SIX, num_steps=10)).latents
    state = started(generator, layout())
    assert state.first_step == 7
    assert not torch.allclose(state.latents, noise)


def test_asked_for_what_it_shows_the_face_comes_back(generator: ExpressionGenerator) -> None:
    table = training_table()
    request = request_for(SIX, num_steps=10, guidance_scale=1.0)
    unknown = replace(request, action_units=np.full_like(request.action_units, np.nan))  # as the face is inverted
    result = generator.synthesise(unknown, [layout(source="same", fixed_point_iterations=6)])
    rows = [list(table.sample_id).index(source) for source in result.layout_source]
    difference = (result.images.int() - table.images.batch(np.array(rows)).int()).abs()
    assert difference.float().mean() < 1 and difference.amax() <= 8


def test_the_more_is_inverted_the_less_is_left(generator: ExpressionGenerator) -> None:
    table = training_table()

    def distance(num_inverted: int) -> float:
        request = request_for(SIX, num_steps=10, guidance_scale=3.0)
        result: Faces = generator.synthesise(request, [layout(num_inverted=num_inverted)])
        rows = [list(table.sample_id).index(source) for source in result.layout_source]
        return float((result.images.float() - table.images.batch(np.array(rows)).float()).abs().mean())

    few, many = distance(1), distance(9)
    assert few < 0.5 * many


def test_faces_of_another_size_are_resized(generator: ExpressionGenerator) -> None:
    state = started(generator, layout(training_table(side=SIDE + 8)))
    assert state.latents.shape == (6, 48, 4, 4) and state.latents.isfinite().all()


def test_more_steps_than_the_sampler_has(generator: ExpressionGenerator) -> None:
    with pytest.raises(ValueError, match=r"layout.num_inverted: found 11, expected 1 … 10 sampling steps"):
        started(generator, layout(num_inverted=11))


# ---------------------------------------------------------------- layouts that are kept


def passes_of(generator: ExpressionGenerator, callback: LayoutInitialisation, **request: Any) -> tuple[int, Faces]:
    """Returns how many faces went through the UNet to make six, and these."""
    passes: list[int] = []
    handle = generator.model.unet.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    try:
        faces = generator.synthesise(request_for(**{"expressions": SIX, "num_steps": 10, **request}), [callback])
    finally:
        handle.remove()
    return sum(passes), faces


def test_a_face_from_the_cache_is_the_face_made_without_it(generator: ExpressionGenerator, tmp_path: Path) -> None:
    plain, expected = passes_of(generator, layout())
    callback = layout(cache_dir=str(tmp_path))
    cold, first = passes_of(generator, callback)
    warm, second = passes_of(generator, callback)
    callback.teardown(SimpleNamespace(), torch.nn.Module(), "fit")  # type: ignore[arg-type]
    next_run, third = passes_of(generator, layout(cache_dir=str(tmp_path)))
    sampling = 3 * 2 * 6
    assert warm == next_run == sampling < cold <= plain == sampling + 3 * 6
    assert torch.equal(first.images, second.images) and torch.equal(first.images, third.images)
    assert (first.images.int() - expected.images.int()).abs().amax() <= 1  # float16's rounding
    assert first.layout_source == expected.layout_source


def test_other_weights_or_settings_find_nothing_of_another_s(generator: ExpressionGenerator, tmp_path: Path) -> None:
    passes_of(generator, layout(cache_dir=str(tmp_path)))
    callback = layout(cache_dir=str(tmp_path))
    cold, _ = passes_of(generator, callback)
    warm, _ = passes_of(generator, callback)
    trained = scaled_weights(tiny_generator(), 2.5).eval()
    assert passes_of(trained, callback)[0] == cold > warm
    assert passes_of(generator, callback, num_steps=9)[0] == cold
    assert passes_of(generator, callback)[0] == warm
    assert passes_of(generator, layout(cache_dir=str(tmp_path), fixed_point_iterations=1))[0] > cold


def test_a_network_that_learns_is_named_anew_and_one_that_stays_once(
    generator: ExpressionGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[int] = []
    monkeypatch.setattr(generator.synthesiser, "network_fingerprint", lambda: str(named.append(1)))
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1)
    for stage, module, times in (("fit", torch.nn.Module(), 1), ("fit", generator, 3), ("predict", generator, 1)):
        callback = layout(cache_dir=str(tmp_path / f"{stage}{times}"))
        callback.setup(trainer, module, stage)  # type: ignore[arg-type]
        named.clear()
        for _ in range(3):
            started(generator, callback)
        assert len(named) == times


@pytest.mark.parametrize("ranks", [1, 2])
def test_layouts_may_be_made_ahead_each_rank_its_share(
    ranks: int, generator: ExpressionGenerator, tmp_path: Path
) -> None:
    for rank in range(ranks):
        callback = layout(cache_dir=str(tmp_path), cache_ahead=True)
        callback.setup(SimpleNamespace(global_rank=rank, world_size=ranks), torch.nn.Module(), "fit")  # type: ignore[arg-type]
        started(generator, callback)
        callback.teardown(SimpleNamespace(), torch.nn.Module(), "fit")  # type: ignore[arg-type]
    afterwards = layout(cache_dir=str(tmp_path))
    for first_id in range(0, 120, 6):  # any face of the table
        started(generator, afterwards, first_id=first_id)
    assert afterwards.cache is not None and afterwards.cache.made == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_bytes": 0}, r"layout.cache_bytes: found 0, expected at least 1"),
        ({"cache_ahead": True}, r"layout.cache_ahead=true: found no layout.cache_dir"),
    ],
)
def test_settings_of_the_cache_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayoutInitialisation(**settings)


# ---------------------------------------------------------------- copies of the source


def similarity_to_source(result: Faces) -> torch.Tensor:
    rows = [list(training_table().sample_id).index(source) for source in result.layout_source]
    return pixel_correlation(result.images, training_table().images.batch(np.array(rows)))


def test_copies_of_the_source_are_discarded_and_counted_whatever_the_batch(generator: ExpressionGenerator) -> None:
    request = request_for(SIX, num_steps=10, guidance_scale=3.0)
    similar = similarity_to_source(generator.synthesise(request, [layout(num_inverted=3)]))
    between = float(similar.sort().values[2:4].mean())
    callback = layout(num_inverted=3, max_similarity=between)
    whole = generator.synthesise(request, [callback])
    assert whole.kept.tolist() == (similar <= between).tolist() and whole.kept.sum() == 3
    assert callback.counts == {"copies": 3} and callback.recipe()["max_similarity"] == between
    parts = [generator.synthesise(request.part(i, i + 2), [callback]).kept for i in range(0, 6, 2)]
    assert torch.equal(torch.cat(parts), whole.kept)
    resumed = layout(num_inverted=3, max_similarity=between)
    resumed.load_state_dict(callback.state_dict())
    assert resumed.counts == {"copies": 6}


def test_nothing_is_discarded_unless_asked(generator: ExpressionGenerator) -> None:
    callback = layout(num_inverted=1)
    assert generator.synthesise(request_for(SIX, num_steps=10), [callback]).kept.all()
    assert callback.counts == {} and "max_similarity" not in callback.recipe()
