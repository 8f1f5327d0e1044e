from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from callbacks.synthesis.guide_temperature import MOST_FACES, GuideTemperature, calibration_faces
from callbacks.synthesis.semantic_guidance import SemanticGuidance
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.folds import hash_numbers
from datamodules.rows.sample_table import UNLABELLED, ArrayImages, SampleTable
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from synfer.foundation.file_reading import FileError
from synfer.synthesis.diffusion.denoising import denoise
from synfer.synthesis.diffusion.temperature_table import CalibratedLevel, TemperatureTable, read_temperatures
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import (
    NAMES,
    SIDE,
    opinionated_classifier,
    request_for,
    save_checkpoint,
    scaled_weights,
    state_for,
    tiny_generator,
)


@pytest.fixture(scope="module")
def generator() -> ExpressionGenerator:
    return scaled_weights(tiny_generator()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_checkpoint(opinionated_classifier(), tmp_path_factory.mktemp("guide") / "x.ckpt"))


def table(count: int, split: str = "train", **changes: Any) -> SampleTable:
    return tiny_table(count, split, **{"side": SIDE, "label_space": NAMES, **changes})


def data(train: SampleTable | None = None, **others: SampleTable) -> ExpressionDataModule:
    evaluation = {"val": table(6, "val"), "test": table(6, "test"), **others}
    return ExpressionDataModule(TinyReader(train=table(30) if train is None else train, **evaluation))


def with_images_of(rows: SampleTable, other: SampleTable, places: list[int]) -> SampleTable:
    """Returns a table whose first rows have the pixels of these rows of another one."""
    array, hashes = rows.images.array.copy(), rows.content_hash.copy()  # type: ignore[attr-defined]
    array[: len(places)] = other.images.array[places]  # type: ignore[attr-defined]
    hashes[: len(places)] = other.content_hash[places]
    return replace(rows, images=ArrayImages(array), content_hash=hashes)


# ---------------------------------------------------------------- which faces


def test_no_evaluation_image_is_among_the_faces_whatever_drop_duplicates_says() -> None:
    train = table(30)
    val, test = (with_images_of(table(6, name), train, places) for name, places in (("val", [4, 7]), ("test", [9])))
    found = calibration_faces(data(train, val=val, test=test), NAMES, None)
    assert sorted(found.table.sample_id) == sorted(f"train-{i}" for i in range(30) if i not in (4, 7, 9))
    assert found.images().shape == (27, 3, SIDE, SIDE)


def test_faces_without_a_label_and_of_what_the_guide_does_not_know_are_left_out() -> None:
    train = table(30)
    label = train.label.copy()
    label[:5] = UNLABELLED
    found = calibration_faces(data(replace(train, label=label)), ("sad", "anger", "neutral"), None)
    names = [("sad", "anger", "neutral")[code] for code in found.label]
    assert names == [NAMES[code] for code in found.table.label] and set(names) == {"sad", "neutral"}
    assert not {f"train-{i}" for i in range(5)} & set(found.table.sample_id)
    with pytest.raises(ValueError, match=r"guidance.calibration: found no training face among 30 whose expression is"):
        calibration_faces(data(), ("anger", "fear"), None)


def test_of_many_faces_some_are_taken_the_classes_in_their_shares() -> None:
    found = calibration_faces(data(), NAMES, None, most=9)
    assert np.bincount(found.label).tolist() == [3, 3, 3] and MOST_FACES == 512
    assert calibration_faces(data(), NAMES, None, most=9).fingerprint() == found.fingerprint()
    assert calibration_faces(data(), NAMES, None, most=8).fingerprint() != found.fingerprint()


def test_how_many_the_guide_has_learned_from_is_counted() -> None:
    train = table(30)
    known = hash_numbers(train.content_hash[:11])
    assert calibration_faces(data(train), NAMES, known).seen == 11
    assert calibration_faces(data(train), NAMES, None).seen is None


# ---------------------------------------------------------------- fitted once, read by others


def trainer(datamodule: Any = None, rank: int = 0) -> Any:
    loop = SimpleNamespace(inference_mode=False)
    return SimpleNamespace(
        datamodule=data() if datamodule is None else datamodule,
        is_global_zero=rank == 0,
        test_loop=loop,
        predict_loop=loop,
        validate_loop=loop,
    )


def guidance(guide: str, path: Path, **settings: Any) -> SemanticGuidance:
    return SemanticGuidance(True, guide, calibration=str(path), **{"start_step": 0, **settings})


def ready(guide: str, path: Path, generator: ExpressionGenerator, rank: int = 0, **settings: Any) -> SemanticGuidance:
    callback = guidance(guide, path, **settings)
    callback.setup(trainer(rank=rank), generator, "predict")
    return callback


def made(generator: ExpressionGenerator, callback: SemanticGuidance, **settings: Any) -> torch.Tensor:
    return generator.synthesise(request_for(["happy", "sad", "neutral"] * 2, **settings), [callback]).images.int()


def test_a_table_is_fitted_and_written_before_the_first_face_and_read_by_the_next_run(
    guide: str, generator: ExpressionGenerator, tmp_path: Path, caplog: Any
) -> None:
    path = tmp_path / "runs" / "guide.json"
    first = ready(guide, path, generator)
    assert not path.exists()
    with caplog.at_level("INFO"):
        faces = made(generator, first)
    assert "fitting the guide's temperatures on 30 training faces" in caplog.text
    written, found = path.read_text(), read_temperatures(path)
    assert found.guide == first.guide_fingerprint() and found.generator == generator.synthesiser.network_fingerprint()
    assert found.faces == 30 and len(found.levels) == 4
    made(generator, first, num_steps=6)
    assert path.read_text() == written  # once
    passes: list[int] = []
    handle = generator.model.unet.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    again = made(generator, ready(guide, path, generator))
    handle.remove()
    assert torch.equal(again, faces) and len(passes) <= 8  # no training face among them


def test_a_rank_other_than_the_first_fits_the_same_and_writes_nothing(
    guide: str, generator: ExpressionGenerator, tmp_path: Path
) -> None:
    other, first = tmp_path / "other.json", tmp_path / "first.json"
    faces = made(generator, ready(guide, other, generator, rank=1))
    assert not other.exists()
    assert torch.equal(made(generator, ready(guide, first, generator)), faces)
    late = guidance(guide, tmp_path / "late.json")
    first.rename(tmp_path / "late.json")  # another rank or run was quicker
    late.setup(trainer(rank=1), generator, "predict")
    assert torch.equal(made(generator, late), faces)


def test_without_a_data_module_the_file_has_to_be_there(
    guide: str, generator: ExpressionGenerator, tmp_path: Path
) -> None:
    message = r"guidance.calibration '.*x.json': found no such file and no training faces to fit it on"
    with pytest.raises(ValueError, match=message):
        made(generator, guidance(guide, tmp_path / "x.json"))  # as another program would
    with pytest.raises(ValueError, match=message):
        guidance(guide, tmp_path / "x.json").setup(trainer(object()), generator, "predict")
    expected = made(generator, ready(guide, tmp_path / "x.json", generator))
    assert torch.equal(made(generator, guidance(guide, tmp_path / "x.json")), expected)


def test_a_table_of_another_guide_is_refused_before_anything_is_made(
    guide: str, generator: ExpressionGenerator, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    made(generator, ready(guide, path, generator))
    other = str(save_checkpoint(opinionated_classifier(seed=4), tmp_path / "other.ckpt"))
    message = r"guidance.calibration '.*x.json': found the temperatures of another guide \([0-9a-f]{16}\), expected "
    with pytest.raises(ValueError, match=message):
        ready(other, path, generator)
    with pytest.raises(ValueError, match=message):
        made(generator, guidance(other, path))


def test_a_table_of_another_generator_is_refused(guide: str, generator: ExpressionGenerator, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    made(generator, ready(guide, path, generator))
    other = scaled_weights(tiny_generator(), 2.0).eval().requires_grad_(False)
    message = r"guidance.calibration '.*x.json': found the temperatures of another generator \(.*\), expected "
    with pytest.raises(ValueError, match=message):
        made(other, guidance(guide, path))
    callback = ready(guide, path, other)
    with pytest.raises(ValueError, match=message):
        callback.recipe()  # before a set is begun
    assert callback.enabled


def test_another_file_and_a_folder_are_refused_at_the_start(guide: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"guidance.calibration '.*': found a folder, expected a .json file"):
        guidance(guide, tmp_path)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(FileError, match=r"calibration of a guide '.*x.json': found a list"):
        guidance(guide, tmp_path / "x.json")
    SemanticGuidance(False, guide, calibration=str(tmp_path))  # switched off, it is not looked at


# ---------------------------------------------------------------- what it does


def saved(path: Path, guide: str, generator: ExpressionGenerator, *pairs: tuple[float, float]) -> Path:
    levels = tuple(CalibratedLevel(noise, temperature, 0.5, 1.0, 1.0) for noise, temperature in pairs)
    network = ExpressionClassifier.load_trained(guide)
    generator_name = generator.synthesiser.network_fingerprint()
    return TemperatureTable(network.weights_fingerprint(), generator_name, "rows", 1, levels).write(path)


@pytest.mark.parametrize("through", ["text", "latents"])
def test_the_logits_are_divided_by_the_temperature_of_the_noise_level(
    through: str, guide: str, generator: ExpressionGenerator, tmp_path: Path
) -> None:
    """As a guide with a third of the weights in its last layer is guided by, where the temperature is 3 everywhere."""
    third = str(save_checkpoint(opinionated_classifier(gain=10), tmp_path / "third.ckpt"))
    thrice = saved(tmp_path / "thrice.json", guide, generator, (0.5, 3.0))
    one = saved(tmp_path / "one.json", guide, generator, (0.5, 1.0))

    def latents(callback: SemanticGuidance) -> torch.Tensor:
        state = state_for(generator, request_for(["happy", "sad", "neutral"], num_steps=5))
        callback.on_denoising_start(state)
        return denoise(state, [callback])

    settings: dict[str, Any] = {"through": through, "start_step": 0, "entropy_weight": 0.5}
    expected = latents(SemanticGuidance(True, third, **settings))
    torch.testing.assert_close(latents(guidance(guide, thrice, **settings)), expected, atol=2e-3, rtol=1e-3)
    plain = latents(SemanticGuidance(True, guide, **settings))
    torch.testing.assert_close(latents(guidance(guide, one, **settings)), plain, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_each_step_has_the_temperature_of_its_noise_and_who_is_sure_is_asked_with_it(
    guide: str, generator: ExpressionGenerator, tmp_path: Path
) -> None:
    state = state_for(generator, request_for(num_steps=4))
    noises = [float(state.sampler.noise_levels(step)[0][1]) for step in range(4)]
    pairs = sorted(zip(noises, [20.0, 20.0, 20.0, 0.05], strict=True))
    path = saved(tmp_path / "x.json", guide, generator, *pairs)
    callback = guidance(guide, path, through="latents", stop_above=0.9)
    callback.on_denoising_start(state)
    passes = []
    for step in range(4):
        state.step, before = step, callback.guided_passes
        with torch.no_grad():
            state.output = state.predict(state.text, state.au)
        callback.on_guided_output(state)
        passes.append(callback.guided_passes - before)
    assert passes == [3, 3, 3, 3]
    losses = callback.losses
    assert max(abs(loss - np.log(3)) for loss in losses[:3]) < 0.2  # at 20 nobody is sure of anything
    assert callback._active is not None and (losses[3] > 1.5 or not callback._active.all())  # at 1 / 20 of everything


def test_a_set_records_the_faces_and_goes_on_with_the_file_that_was_fitted(
    guide: str, generator: ExpressionGenerator, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    callback = ready(guide, path, generator)
    before = callback.recipe()
    made(generator, callback)
    assert before["calibration"] == json.loads(path.read_text())["rows"]
    assert ready(guide, path, generator).recipe() == before == callback.recipe()
    assert "calibration" not in SemanticGuidance(True, guide).recipe()
    assert "from step 0, calibrated)" in callback.in_words()


def test_no_temperature_is_told_before_there_are_any(generator: ExpressionGenerator, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="prepare"):
        GuideTemperature(tmp_path / "x.json").at(state_for(generator, request_for()))
