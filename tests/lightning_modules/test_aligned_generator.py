"""A generator that learns beside its noise what a frozen network sees."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.generator_test import GeneratorTest
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.folds import hash_numbers
from lightning_modules.aligned_generator import check_apart
from lightning_modules.generator import ExpressionGenerator
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import (
    NAMES,
    SIDE,
    request_for,
    save_base,
    save_checkpoint,
    save_trained_on,
    tiny_classifier,
    tiny_generator,
)
from tests.lightning_modules.test_generator import changed, fit, make_trainer, tiny_data, weights


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_checkpoint(tiny_classifier(), tmp_path_factory.mktemp("teacher") / "teacher.ckpt"))


def aligned(teacher: str, **changes: Any) -> ExpressionGenerator:
    return tiny_generator(**{"alignment": {"features": teacher, "weight": 0.5}, "learning_rate": 5e-3, **changes})


def model_weights(module: ExpressionGenerator) -> dict[str, torch.Tensor]:
    return weights(module.model)


def test_its_loss_falls_and_is_added_with_its_weight(teacher: str, tmp_path: Path) -> None:
    generator = aligned(teacher)
    seen: list[dict[str, float]] = []
    log = generator.log

    def noted(name: str, value: Any, **rest: Any) -> None:
        seen.append({name: float(torch.as_tensor(value).detach())})
        log(name, value, **rest)

    generator.log = noted  # type: ignore[method-assign]
    returned: list[float] = []
    step = generator._diffusion_loss

    def kept(*given: Any) -> torch.Tensor:
        loss = step(*given)
        returned.append(float(loss.detach()))
        return loss

    generator._diffusion_loss = kept  # type: ignore[method-assign]
    fit(generator, tmp_path, max_epochs=12)
    alignment = [entry["train/alignment_loss"] for entry in seen if "train/alignment_loss" in entry]
    plain = [entry["train/loss"] for entry in seen if "train/loss" in entry]
    assert len(alignment) == len(plain) == len(returned) == 36
    assert all(c == pytest.approx(a + 0.5 * b, rel=1e-5) for a, b, c in zip(plain, alignment, returned, strict=True))
    assert sum(alignment[-6:]) < 0.7 * sum(alignment[:6])


def test_it_teaches_the_unet_and_draws_no_number_that_was_anothers(teacher: str, tmp_path: Path) -> None:
    plain = fit(tiny_generator(learning_rate=5e-3), tmp_path)
    torch.manual_seed(5)
    with_it = fit(aligned(teacher), tmp_path)
    moved = changed(model_weights(plain), model_weights(with_it))
    assert any(name.startswith("unet.mid_block") for name in moved)
    unheard = aligned(teacher, alignment={"features": teacher, "weight": 1e-12})
    for name, tensor in model_weights(fit(unheard, tmp_path)).items():
        assert torch.allclose(tensor, plain.model.state_dict()[name], atol=1e-4), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_fit_goes_on_as_if_never_stopped(optimizer: Any, teacher: str, tmp_path: Path) -> None:
    def through(resume: Path | None = None) -> ExpressionGenerator:
        checkpoint = ModelCheckpoint(tmp_path / str(resume is None), filename="{epoch}", save_top_k=-1)
        torch.manual_seed(0)
        generator = aligned(teacher, optimizer=optimizer, ema_decay=0.9)
        return fit(generator, tmp_path, resume, max_epochs=3, callbacks=[checkpoint])

    whole = through()
    resumed = through(tmp_path / "True" / "epoch=0.ckpt")
    assert any(name.startswith("alignment.") for name in weights(whole))
    assert not changed(weights(whole), weights(resumed))


def test_files_make_faces_without_projection_or_teacher(tmp_path: Path) -> None:
    teacher = save_checkpoint(tiny_classifier(), tmp_path / "gone.ckpt")
    generator = fit(aligned(str(teacher), ema_decay=0.9), tmp_path)
    generator.trainer.save_checkpoint(tmp_path / "x.ckpt")
    generator.save_trained(tmp_path / "folder")
    teacher.unlink()
    stored = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in stored["state_dict"]} == {"model", "alignment"}
    assert stored["ema"]["average"].keys() <= generator.model.state_dict().keys()

    loaded = ExpressionGenerator.load_trained(tmp_path / "x.ckpt")
    assert loaded.alignment is None and not any(name.startswith("alignment") for name in loaded.state_dict())
    with generator.ema.swapped():  # type: ignore[union-attr]
        expected = generator.eval().synthesise(request_for()).images
    assert torch.equal(loaded.synthesise(request_for()).images, expected)
    from_folder = ExpressionGenerator.load_trained(tmp_path / "folder")
    assert from_folder.alignment is None and from_folder.taught_by == loaded.taught_by == generator.taught_by
    assert len(loaded.taught_by) == 1 and "_taught_by" in json.loads((tmp_path / "folder" / "config.json").read_text())
    for other in (aligned(str(teacher)), tiny_generator()):
        make_trainer(tmp_path, limit_val_batches=1.0).validate(
            other, datamodule=tiny_data(), ckpt_path=tmp_path / "x.ckpt", verbose=False
        )
        assert not changed(model_weights(other), {**model_weights(generator)})


def test_a_training_begins_with_its_weights_and_knows_who_taught_them(teacher: str, tmp_path: Path) -> None:
    first = fit(aligned(teacher), tmp_path)
    first.trainer.save_checkpoint(tmp_path / "x.ckpt")
    for changes in ({}, {"alignment": {"features": teacher}}):
        second = fit(tiny_generator(initial_weights=str(tmp_path / "x.ckpt"), **changes), tmp_path)
        assert second.taught_by == first.taught_by != ()


@pytest.mark.parametrize("before", [True, False])
def test_a_checkpoint_is_gone_on_from_with_an_alignment_or_without(before: bool, teacher: str, tmp_path: Path) -> None:
    def made(with_it: bool) -> ExpressionGenerator:
        return aligned(teacher) if with_it else tiny_generator()

    fit(made(before), tmp_path).trainer.save_checkpoint(tmp_path / "x.ckpt")
    expected = "one, as in the checkpoint" if before else "null, as in the checkpoint"
    with pytest.raises(ValueError, match=rf"model.alignment.features: found .*, expected {expected}"):
        fit(made(not before), tmp_path, tmp_path / "x.ckpt", max_epochs=2)


def test_the_teacher_is_no_judge(teacher: str, tmp_path: Path) -> None:
    generator = fit(aligned(teacher), tmp_path)
    same = str(save_checkpoint(tiny_classifier(), tmp_path / "under_another_name.ckpt"))
    other = str(save_checkpoint(tiny_classifier(seed=1), tmp_path / "other.ckpt"))
    for settings in ({"judge": same}, {"judge": other, "features": same}):
        trainer = make_trainer(tmp_path, callbacks=[GeneratorTest(**settings, samples=6)])
        with pytest.raises(
            ValueError, match=r"is the network that the generator learned by .*model.alignment.features"
        ):
            trainer.test(generator, datamodule=tiny_data(), verbose=False)


def test_what_the_same_command_names_otherwise_is_refused(teacher: str, tmp_path: Path) -> None:
    path = str(tmp_path / "x.ckpt")
    around = str(tmp_path / "y" / ".." / "x.ckpt")
    named = [
        ("test.judge", SimpleNamespace(files=SimpleNamespace(judge=around, features=None))),
        ("test.features", SimpleNamespace(files=SimpleNamespace(judge="z.ckpt", features=path))),
        ("guidance.guide", SimpleNamespace(guide_path=path, enabled=True)),
    ]
    for key, callback in named:
        with pytest.raises(
            ValueError, match=rf"model.alignment.features: found '.*', expected another network than {key}"
        ):
            check_apart(path, [callback])
    check_apart(path, [SimpleNamespace(guide_path=path, enabled=False), SimpleNamespace()])
    with pytest.raises(ValueError, match=r"expected another network than test.judge"):
        fit(aligned(teacher), tmp_path, callbacks=[GeneratorTest(judge=teacher)])


def test_on_a_base_lora_learns_by_it_too(teacher: str, tmp_path: Path) -> None:
    base = str(save_base(tmp_path / "base"))
    generator = fit(aligned(teacher, base=base, trained="lora"), tmp_path)
    stored = tmp_path / "x.ckpt"
    generator.trainer.save_checkpoint(stored)
    kept = torch.load(stored, weights_only=True)["state_dict"]
    assert all(name.startswith("alignment.") or "lora_" in name or "ip" in name or "hid" in name for name in kept)
    generator.save_trained(tmp_path / "folder")
    assert ExpressionGenerator.load_trained(tmp_path / "folder").taught_by == generator.taught_by
    with pytest.raises(ValueError, match=r"model.cache.path: found .*, expected null beside model.alignment.features"):
        aligned(teacher, base=base, trained="lora", cache={"path": str(tmp_path / "cache")})


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("middle", r"model.alignment.layer: found middle, expected the name of a module of the UNet"),
        ("time_embedding", r"model.alignment.layer: found time_embedding, whose output is no map, expected"),
    ],
)
def test_layers_without_maps(layer: str, message: str, teacher: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fit(aligned(teacher, alignment={"features": teacher, "layer": layer}), tmp_path)


def test_other_layers_and_a_missing_teacher(teacher: str, tmp_path: Path) -> None:
    fit(aligned(teacher, alignment={"features": teacher, "layer": "up_blocks.0"}), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model.alignment.features: found no file '.*gone.ckpt'"):
        fit(aligned(str(tmp_path / "gone.ckpt")), tmp_path)
    with pytest.raises(ValueError, match=r"model.execution.compile_backend: found eager, expected null beside"):
        aligned(teacher, compile_backend="eager")


class WithoutValidation(TinyReader):
    def has_split(self, split: str) -> bool:  # type: ignore[override]
        return split in self.tables


def test_a_teacher_that_has_seen_what_is_held_out_is_refused(tmp_path: Path) -> None:
    rows = tiny_table(24, "train", SIDE, label_space=NAMES)
    path = save_trained_on(tiny_classifier(), tmp_path / "seen.ckpt", hash_numbers(rows.content_hash))
    data = ExpressionDataModule(WithoutValidation(train=rows), val_fraction=0.25, batch_size=8, eval_batch_size=8)
    message = (
        r"model.alignment.features '.*seen.ckpt': found a model that has learned from \d+ of the \d+ rows held out"
    )
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path).fit(aligned(str(path)), datamodule=data)
