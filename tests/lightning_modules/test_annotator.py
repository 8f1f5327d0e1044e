from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

import train
from datamodules.loading.mixed_dataset import MixedDataset
from lightning_modules.annotator import LabelAnnotator
from synfer.networks.feature_cache import FeatureCache
from synfer.synthesis.diffusion.generator_reader import GeneratorReader
from tests.fixtures.processes import run_to_end
from tests.fixtures.tiny_generator import NAMES, SIDE, save_checkpoint, scaled_weights, tiny_generator

PROJECT = Path(train.__file__).parent


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a generator of random weights."""
    folder = tmp_path_factory.mktemp("generator")
    scaled_weights(tiny_generator()).save_trained(folder)
    return str(folder)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of faces of each pass of a generator from here on."""
    found: list[int] = []
    run = GeneratorReader.run

    def counted(self: GeneratorReader, clean: torch.Tensor) -> list[torch.Tensor]:
        found.append(len(clean))
        return run(self, clean)

    monkeypatch.setattr(GeneratorReader, "run", counted)
    return found


def annotator(generator: str, **changes: Any) -> LabelAnnotator:
    torch.manual_seed(0)
    return LabelAnnotator(
        generator, **{"label_space": list(NAMES), "width": 16, "widths": [8], "depths": [1], "num_heads": 2, **changes}
    )


def faces(n: int = 4, side: int = SIDE, seed: int = 0) -> torch.Tensor:
    drawn = torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(seed))
    return drawn.float() / 255


def command(generator: str, run_dir: Path, *more: str, space: str = "[neutral,happy,sad]") -> list[str]:
    """A fit on 24 + 12 drawn faces of 32 pixels."""
    model = {
        "class_path": "lightning_modules.annotator.LabelAnnotator",
        "init_args": {"generator": generator, "label_space": list(NAMES), "width": 16, "num_heads": 2},
    }
    reader = {
        "class_path": "datamodules.readers.DrawnReader",
        "init_args": {"count": {"train": 24, "val": 12, "test": 12}, "image_size": 32, "label_space": list(NAMES)},
    }
    config = run_dir.with_suffix(".yaml")
    trainer = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    data = {"reader": reader, "batch_size": 8, "eval_batch_size": 8, "augmentation": {"enabled": False}}
    config.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    return ["fit", f"--config={config}", f"--run_dir={run_dir}", *more]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timestep": 1000}, r"model.timestep: found 1000, expected a training timestep in 0…999"),
        ({"width": 15}, r"model.width: found 15, expected a multiple of num_heads \(2\)"),
        ({"dropout": 1.0}, r"model.dropout: found 1.0"),
        ({"drop_rate": 1.0}, r"model.drop_rate: found 1.0"),
        ({"momentum": 1.0}, r"model.momentum: found 1.0"),
        ({"optimizer": "lion"}, r"model.optimizer: found lion, expected one of sgd, adamw, muon"),
        ({"stem": "tiny"}, r"model.stem: found tiny, expected one of auto, small, half, native"),
        ({"widths": [8, 0]}, r"model.widths: found \[8, 0\], expected at least one number ≥ 1"),
        ({"depths": []}, r"model.depths: found \[\], expected at least one number ≥ 0"),
        ({"flip": -0.1}, r"model.flip: found -0.1"),
        ({"branches": "none"}, r"model.branches: found none"),
        (
            {"feature_modules": []},
            r"model.feature_modules: found \[\], expected at least one module, or a model.backbone",
        ),
        ({"backbone": "resnet19"}, r"model.backbone: timm knows no network 'resnet19', did you mean"),
        ({"backbone": "vit_tiny_patch16_224"}, r"'vit_tiny_patch16_224' .* cannot take 3×16×16: Input height"),
        (
            {"backbone_kwargs": {"channels": [8]}},
            r"model.backbone_kwargs: found .* nothing where model.backbone is null",
        ),
        ({"feature_modules": ["up_blocks.9"]}, r"model.feature_modules: found 'up_blocks.9'"),
        ({"feature_modules": ["up_blocks"]}, r"found 'up_blocks', expected names such as .*, mid_block, up_blocks.0"),
        ({"feature_modules": ["down_blocks.0.resnets"]}, r"found 'down_blocks.0.resnets', expected names such as"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str, generator: str) -> None:
    with pytest.raises(ValueError, match=message):
        annotator(generator, **settings)


def test_a_missing_generator_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"generator '.*nowhere'"):
        annotator(str(tmp_path / "nowhere"))


def test_generator_is_frozen_and_no_part_of_it(generator: str) -> None:
    module = annotator(generator)
    assert all(name.startswith("head.") for name, _ in module.named_parameters())
    assert not any("unet" in name for name in module.state_dict())
    module.train()
    assert not module.generator.training
    assert not any(p.requires_grad for p in module.generator.parameters())


@pytest.mark.parametrize("latents", ["clean", "inverted", "noised"])
def test_what_is_read_depends_on_the_face_alone(latents: Any, generator: str) -> None:
    module = annotator(generator, latents=latents, timestep=5)
    image = faces(3)
    whole, alone = module.read(image), module.read(image[1:2])
    for maps, one in zip(whole, alone, strict=True):
        torch.testing.assert_close(maps[1:2], one, atol=1e-5, rtol=1e-4)
        assert not torch.equal(maps[0], maps[1])
    assert sum(maps[0].numel() for maps in whole) == module.feature_width


TRUNK: dict[str, Any] = {"backbone": "resnet18", "backbone_kwargs": {"channels": [8, 8, 16, 16]}}
"""A small timm network that reads the latents."""
TRUNK_ARGS = ["--model.backbone=resnet18", "--model.backbone_kwargs={channels: [8, 8, 16, 16]}"]


def test_latents_reach_the_head_s_backbone_and_stay_out_of_the_cache(generator: str, tmp_path: Path) -> None:
    plain, module = annotator(generator), annotator(generator, **TRUNK)
    assert module.feature_width == plain.feature_width and module.cache_identity() == plain.cache_identity()
    cache = FeatureCache(tmp_path, module.cache_identity(), module.feature_width)
    first, *others = module.read(faces(3), cache)
    codec = module.generator.model.codec
    torch.testing.assert_close(first, codec.spread(codec.encode(faces(3) * 2 - 1)))
    assert tuple(first.shape) == (3, 3, SIDE, SIDE)
    assert len(others) == len(plain.read(faces(3)))
    module.eval()
    maps = module.read(faces(3))
    logits = module._classify(maps)
    for i in range(len(maps)):
        assert not torch.equal(logits, module._classify([m.flip(0) if i == j else m for j, m in enumerate(maps)]))


def test_a_native_stem_brings_the_latents_to_fewer_cells(generator: str) -> None:
    sides = {
        stem: [side for _, side in annotator(generator, **TRUNK, stem=stem).head.branches["features"].stages.values()]
        for stem in ("small", "native", "auto")
    }
    assert sides["auto"] == sides["small"]
    assert max(sides["native"]) <= max(sides["small"]) / 2


def test_the_head_is_trained_by_the_optimiser_that_was_asked_for(generator: str, tmp_path: Path) -> None:
    sgd = ["--model.optimizer=sgd", "--model.learning_rate=0.1", "--model.momentum=0.8", "--trainer.max_epochs=1"]
    trainer = train.main(command(generator, tmp_path / "run", *sgd)).trainer
    [optimizer] = trainer.optimizers
    assert isinstance(optimizer, torch.optim.SGD)
    assert {(g["momentum"], g["nesterov"], g["initial_lr"]) for g in optimizer.param_groups} == {(0.8, True, 0.1)}
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert held == {id(p) for p in trainer.lightning_module.head.parameters()}


def test_latents_alone_need_no_pass_of_the_generator(generator: str, passes: list[int], tmp_path: Path) -> None:
    """The control: the same head without anything of the generator but its codec."""
    control = {**TRUNK, "feature_modules": [], "branches": "features"}
    module = annotator(generator, **control)
    module.generator.model.unet.register_forward_pre_hook(lambda *_: pytest.fail("the UNet ran"))
    assert module.feature_width == 0 and len(module.read(faces())) == 1
    assert tuple(module.predict_probabilities(faces()).shape) == (4, 3)
    more = [*TRUNK_ARGS, "--model.feature_modules=[]", "--model.branches=features"]
    more += [f"--model.feature_cache={tmp_path / 'cache'}", "--data.augmentation.enabled=true"]
    train.main(command(generator, tmp_path / "run", *more))  # nothing is cached, so any augmentation will do
    assert not (tmp_path / "cache").exists()


def test_an_annotator_with_a_backbone_comes_back_from_its_checkpoint(generator: str, tmp_path: Path) -> None:
    trained = train.main(command(generator, tmp_path / "run", *TRUNK_ARGS)).model.eval()
    loaded = LabelAnnotator.load_trained(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert loaded.head.has_backbone
    raw = trained.predict_probabilities(faces())
    trained.ema.apply()
    averaged = trained.predict_probabilities(faces())
    assert torch.equal(loaded.predict_probabilities(faces()), averaged) and not torch.equal(raw, averaged)


def test_settings_that_the_weights_do_not_show_must_be_those_of_the_checkpoint(
    generator: str, tmp_path: Path, capsys: Any
) -> None:
    train.main(command(generator, tmp_path / "run", *TRUNK_ARGS, "--model.stem=half", "--trainer.max_epochs=1"))
    checkpoint = f"--ckpt_path={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}"
    for stem, optimizer, expected in (
        ("native", "adamw", "model.stem: found native, expected half, as in the checkpoint"),
        ("half", "sgd", "model.optimizer: found sgd, expected adamw, as in the checkpoint"),
    ):
        more = [*TRUNK_ARGS, f"--model.stem={stem}", f"--model.optimizer={optimizer}", checkpoint]
        with pytest.raises(SystemExit):
            train.main(command(generator, tmp_path / optimizer, *more))
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timestep", 30),
        ("latents", "noised"),
        ("map_size", 3),
        ("num_heads", 4),
        ("feature_modules", ["up_blocks.0", "mid_block", "up_blocks.1"]),
    ],
)
def test_a_head_reads_only_what_it_was_trained_on(name: str, value: Any, generator: str) -> None:
    checkpoint: dict[str, Any] = {"state_dict": annotator(generator).state_dict()}
    annotator(generator, feature_modules=["mid_block", "up_blocks.0", "up_blocks.1"]).on_save_checkpoint(checkpoint)
    annotator(generator).on_load_checkpoint(checkpoint)  # null means these modules
    with pytest.raises(ValueError, match=rf"model\.{name}: found .*, expected .*, as in the checkpoint"):
        annotator(generator, **{name: value}).on_load_checkpoint(checkpoint)


def test_the_export_of_its_generator_will_do(tmp_path: Path) -> None:
    lively = scaled_weights(tiny_generator())
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(lively)
    trainer.save_checkpoint(tmp_path / "g.ckpt")
    lively.save_trained(tmp_path / "export")
    module = annotator(str(tmp_path / "g.ckpt"))
    exported = annotator(str(tmp_path / "export"))
    assert module.generator_fingerprint != exported.generator_fingerprint  # rounded: features have a cache of their own
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    exported.on_load_checkpoint(checkpoint)
    scaled_weights(tiny_generator(), 5).save_trained(tmp_path / "another")
    with pytest.raises(ValueError, match="expected the generator that it was trained on, or that one's export"):
        annotator(str(tmp_path / "another")).on_load_checkpoint(checkpoint)


def test_a_head_of_another_build_is_refused(generator: str) -> None:
    module = annotator(generator)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)
    checkpoint["state_dict"]["head.scale"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"'head\.scale' is on one side only \(1 such tensors\); train it again"):
        module.on_load_checkpoint(checkpoint)


def test_both_views_are_averaged_for_the_price_of_one_pass(generator: str) -> None:
    module = annotator(generator, **TRUNK, maps_tta=True).eval()
    with torch.no_grad():  # maps that say something
        for layer in module.head.branches["features"].inputs.values():
            layer[-1].bias.fill_(3.0)
        maps = module.read(faces())
        alone = module._classify([maps[0], *(m[:0] for m in maps[1:])], torch.zeros(len(maps[0]), dtype=torch.bool))
        both = (module(faces()).softmax(1) + alone.softmax(1)) / 2
    assert not torch.allclose(module(faces()).softmax(1), alone.softmax(1), atol=1e-3)
    passes: list[int] = []
    module.generator.model.unet.register_forward_pre_hook(lambda *_: passes.append(1))
    torch.testing.assert_close(module.predict_probabilities(faces()), both)
    assert len(passes) == 1
    plain, asked = annotator(generator).eval(), annotator(generator, maps_tta=True).eval()
    asked.load_state_dict(plain.state_dict())
    assert torch.equal(plain.predict_probabilities(faces()), asked.predict_probabilities(faces()))  # no backbone


def test_a_view_that_training_lacks_is_not_averaged(generator: str, tmp_path: Path, capsys: Any) -> None:
    asked = [*TRUNK_ARGS, "--model.maps_tta=true"]
    with pytest.raises(SystemExit):
        train.main(command(generator, tmp_path / "refused", *asked))
    assert "expected data.augmentation.uncached_fraction > 0 or model.maps_tta=false" in capsys.readouterr().err
    taught = [
        "--data.augmentation.enabled=true",
        "--data.augmentation.cached_views=2",
        "--data.augmentation.uncached_fraction=0.5",
    ]
    train.main(command(generator, tmp_path / "taught", *asked, *taught))
    one_view = ["--model.feature_modules=[]", "--model.branches=features"]
    train.main(command(generator, tmp_path / "no maps", *asked, *one_view))


def test_latents_at_the_timestep(generator: str) -> None:
    clean, inverted, noised = (
        torch.cat([m.flatten() for m in annotator(generator, latents=kind, timestep=300).read(faces())])
        for kind in ("clean", "inverted", "noised")
    )
    assert not torch.allclose(clean, inverted, atol=1e-3) and not torch.allclose(clean, noised, atol=1e-3)
    at_one = torch.cat([m.flatten() for m in annotator(generator, latents="inverted").read(faces())])
    near = torch.cat([m.flatten() for m in annotator(generator).read(faces())])
    assert (at_one - near).abs().mean() < (inverted - clean).abs().mean()


def test_one_pass_of_the_network_per_batch(generator: str) -> None:
    module, passes = annotator(generator), []
    module.generator.model.unet.register_forward_pre_hook(lambda *_: passes.append(1))
    module.predict_probabilities(faces())
    assert len(passes) == 1


def test_a_compiled_generator_is_read_as_well(generator: str, tmp_path: Path) -> None:
    scaled_weights(tiny_generator(compile_backend="eager")).save_trained(tmp_path)
    for compiled, plain in zip(annotator(str(tmp_path)).read(faces()), annotator(generator).read(faces()), strict=True):
        torch.testing.assert_close(compiled, plain)


def test_probabilities_are_calibrated_ones_and_empty_batches_stay_empty(generator: str) -> None:
    module = annotator(generator).eval()
    logits = module(faces())
    module.temperature.fill_(2.5)
    torch.testing.assert_close(module.predict_probabilities(faces()), (logits / 2.5).softmax(1))
    mean = (logits.softmax(1) + module(faces().flip(-1)).softmax(1)) / 2
    flipped = (mean.log() / 2.5).softmax(1)
    torch.testing.assert_close(module.predict_probabilities(faces(), flip=True), flipped)
    assert tuple(module.predict_probabilities(faces(0)).shape) == (0, 3)
    assert tuple(module.predict_probabilities(faces(2, side=24)).shape) == (2, 3)


def test_fingerprints_tell_head_and_generator_apart(generator: str, tmp_path: Path) -> None:
    module = annotator(generator)
    assert module.weights_fingerprint() == annotator(generator).weights_fingerprint()
    assert module.weights_fingerprint() != annotator(generator, width=18).weights_fingerprint()
    tiny_generator().save_trained(tmp_path)
    assert module.weights_fingerprint() != annotator(str(tmp_path)).weights_fingerprint()


def test_checkpoint_holds_the_head_alone_and_brings_everything_back(generator: str, tmp_path: Path) -> None:
    module = annotator(generator).eval()
    module.temperature.fill_(1.7)
    path = save_checkpoint(module, tmp_path / "a.ckpt")
    stored = torch.load(path, weights_only=True)
    assert {name.split(".")[0] for name in stored["state_dict"]} == {"head", "temperature"}
    loaded = LabelAnnotator.load_trained(path, label_space=NAMES)
    torch.testing.assert_close(loaded.predict_probabilities(faces()), module.predict_probabilities(faces()))
    assert loaded.weights_fingerprint() == module.weights_fingerprint() and not loaded.training
    with pytest.raises(ValueError, match=r"found the label space neutral, happy, sad, expected neutral, happy, sad, s"):
        LabelAnnotator.load_trained(path, label_space="basic7")


def test_evaluation_and_loading_take_the_averaged_weights(generator: str, tmp_path: Path) -> None:
    cli = train.main(command(generator, tmp_path / "run", "--model.ema_decay=0.5"))
    module, last = cli.model, tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert module.ema.num_updates == 6 and not module.ema.is_swapped
    loaded = LabelAnnotator.load_trained(last)
    name = "linear.weight"
    torch.testing.assert_close(dict(loaded.head.named_parameters())[name], module.ema.average[name].cpu())
    assert not torch.equal(module.ema.average[name].cpu(), module.head.linear.weight.cpu())
    stored = torch.load(last, weights_only=True)["state_dict"]["head.linear.weight"]
    torch.testing.assert_close(stored, module.head.linear.weight.cpu())
    tested = train.main(["test", *command(generator, tmp_path / "test")[1:], f"--ckpt_path={last}"])
    assert tested.model.ema.num_updates == 6 and not tested.model.ema.is_swapped
    table = tested.datamodule.test_table
    samples = MixedDataset(table).__getitems__(list(range(len(table))))
    found = loaded.predict_probabilities(samples["image"].float().expand(-1, 3, -1, -1) / 255)
    loss = float(F.nll_loss(found.log(), samples["label"]))
    raw = json.loads((tmp_path / "test" / "summary.json").read_text())["metrics"]["test/loss"]
    assert raw == pytest.approx(loss, abs=1e-5)


def test_a_resumed_run_goes_on_with_its_average(generator: str, tmp_path: Path) -> None:
    whole = train.main(command(generator, tmp_path / "whole", "--trainer.max_epochs=4")).model
    train.main(command(generator, tmp_path / "part", "--trainer.max_epochs=4", "--trainer.max_steps=6"))
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    went_on = train.main(command(generator, tmp_path / "part", "--trainer.max_epochs=4", f"--ckpt_path={last}")).model
    assert went_on.ema.num_updates == whole.ema.num_updates == 12
    assert set(went_on.ema.average) == set(whole.ema.average)


def test_a_checkpoint_of_another_head_is_refused(generator: str, tmp_path: Path) -> None:
    path = save_checkpoint(annotator(generator), tmp_path / "a.ckpt")
    content = torch.load(path, weights_only=True)
    content["label_annotator"]["config"]["depth"] = 2
    torch.save(content, path)
    with pytest.raises(ValueError, match="with the setting 'depth', which there is no more"):
        LabelAnnotator.load_trained(path)
    with pytest.raises(ValueError, match="with the setting 'depth', which there is no more"):
        annotator(generator).on_load_checkpoint(content)


def test_features_are_those_of_the_rounded_image(generator: str, tmp_path: Path) -> None:
    module = annotator(generator)
    cache = FeatureCache(tmp_path, module.cache_identity(), module.feature_width)
    image = faces(3)
    near = (image + 0.3 / 255).clamp(max=1)
    for kept, fresh in zip(module.read(near, cache), module.read(image), strict=True):
        torch.testing.assert_close(kept, fresh, atol=2e-2, rtol=2e-3)
    module.read(image, cache)
    assert len(cache) == 3


def test_a_full_disk_is_foreseen(generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatureCache, "free_bytes", staticmethod(lambda root: 1000))
    with pytest.warns(UserWarning, match=r"GB are to come, found 0\.00 GB free"):
        train.main(command(generator, tmp_path / "run", f"--model.feature_cache={tmp_path / 'c'}"))


def test_another_generator_is_refused(generator: str, tmp_path: Path) -> None:
    path = save_checkpoint(annotator(generator), tmp_path / "a.ckpt")
    tiny_generator().save_trained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"reads a generator with the fingerprint \w{16}, but '.*other' has \w{16}"):
        LabelAnnotator.load_trained(path, generator=str(tmp_path / "other"))


def test_files_that_are_no_annotators(generator: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file at"):
        LabelAnnotator.load_trained(tmp_path / "nowhere.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        LabelAnnotator.load_trained(tmp_path / "text.ckpt")
    path = save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    with pytest.raises(ValueError, match="is no checkpoint of LabelAnnotator"):
        LabelAnnotator.load_trained(path)


def test_fit_with_a_cache_reads_each_face_once(generator: str, passes: list[int], tmp_path: Path) -> None:
    cached = f"--model.feature_cache={tmp_path / 'cache'}"
    cli = train.main(command(generator, tmp_path / "first", cached))
    assert sum(passes) == 1 + 2 * 24 + 12  # one to learn the shapes; faces and mirror images; validation
    passes.clear()
    train.main(command(generator, tmp_path / "second", cached, "--trainer.max_epochs=1"))
    assert sum(passes) == 1
    metrics = json.loads((tmp_path / "first" / "summary.json").read_text())["metrics"]
    assert {"val/accuracy", "val/ece", "val/loss", "val/temperature", "train/loss"} <= set(metrics)
    assert float(cli.model.temperature) != 1
    loaded = LabelAnnotator.load_trained(tmp_path / "first" / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(loaded.temperature, cli.model.temperature.cpu())
    (folder,) = (tmp_path / "cache").iterdir()
    assert json.loads((folder / "about.json").read_text())["generator"] == cli.model.generator_fingerprint


@pytest.mark.parametrize(
    ("epochs", "when"),
    [(1, "was never fitted, its weights are of step 3"), (3, "was fitted at step 6, its weights are of step 9")],
)
def test_weights_that_the_temperature_does_not_fit_are_told(
    epochs: int, when: str, generator: str, tmp_path: Path
) -> None:
    options = (f"--trainer.max_epochs={epochs}", "--trainer.check_val_every_n_epoch=2")
    with pytest.warns(UserWarning, match=rf"^the annotator's temperature {when}.*check_val_every_n_epoch"):
        train.main(command(generator, tmp_path, *options))
    path = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.warns(UserWarning, match=rf"last.ckpt: the annotator's temperature {when}"):
        LabelAnnotator.load_trained(path)


def test_weights_that_the_temperature_fits_load_without_a_word(generator: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train.main(command(generator, tmp_path))
        LabelAnnotator.load_trained(tmp_path / "checkpoints" / "last.ckpt")
    assert [str(warning.message) for warning in said if "temperature" in str(warning.message)] == []


@pytest.mark.parametrize("settings", [{}, {**TRUNK, "maps_tta": True}])
def test_what_is_predicted_is_as_calibrated_as_validation_says(
    generator: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    module, logged = annotator(generator, flip_tta=True, **settings).eval(), {}
    with torch.no_grad():  # a face and its mirror image are to be seen differently
        for parameter in module.head.parameters():
            parameter.mul_(3)
    module.temperature.fill_(2.5)
    label = torch.arange(24) % 3
    soft_label = F.one_hot(label, 3).float()
    batch: Any = {
        "image": faces(24),
        "label": label,
        "soft_label": soft_label,
        "sample_id": [str(i) for i in range(24)],
    }
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    module._trainer = SimpleNamespace(  # type: ignore[assignment]
        sanity_checking=False,
        fast_dev_run=True,
        is_global_zero=True,
        barebones=False,
        state=SimpleNamespace(fn="validate"),
    )
    with torch.no_grad():
        module.validation_step(batch, 0)
        module._report_evaluation("val")
        found = module.predict_step(batch, 0)["probabilities"]
    assert float(F.nll_loss(found.log(), label)) == pytest.approx(logged["val/loss"], abs=1e-5)
    ece = float(multiclass_calibration_error(found, label, 3, validate_args=False))
    assert ece == pytest.approx(logged["val/ece"], abs=1e-5)
    raw = (found.log() * module.temperature).softmax(1)
    ece = float(multiclass_calibration_error(raw, label, 3))
    assert ece == pytest.approx(logged["val/ece_uncalibrated"], abs=1e-5)


def test_cached_maps_are_those_of_the_generator(generator: str, tmp_path: Path) -> None:
    module, image = annotator(generator), faces(5)
    cache = FeatureCache(tmp_path, module.cache_identity(), module.feature_width)
    for _ in range(2):
        for kept, fresh in zip(module.read(image, cache, mirror_too=True), module.read(image), strict=True):
            torch.testing.assert_close(kept, fresh, atol=2e-2, rtol=2e-3)
    assert len(cache) == 10
    mirrored = module.read(image.flip(-1), cache)
    assert len(cache) == 10
    for kept, fresh in zip(mirrored, module.read(image.flip(-1)), strict=True):
        torch.testing.assert_close(kept, fresh, atol=2e-2, rtol=2e-3)


def test_another_setting_is_another_cache(generator: str) -> None:
    one = annotator(generator).cache_identity()
    others = [{"timestep": 2}, {"latents": "noised"}, {"feature_modules": ["mid_block"]}, {"map_size": 3}]
    for change in others:
        assert annotator(generator, **change).cache_identity() != one
    assert annotator(generator, width=18).cache_identity() == one  # the head does not matter


@pytest.mark.parametrize("part", ["codec_config", "unet", "scheduler"])
def test_another_build_with_the_same_weights_is_another_cache(part: str, generator: str, tmp_path: Path) -> None:
    shutil.copytree(generator, tmp_path / "g")
    config = json.loads((tmp_path / "g" / "config.json").read_text())
    change = {"codec_config": {"scaling_factor": 3.0}, "unet": {"norm_eps": 0.1}, "scheduler": {"beta_end": 0.5}}[part]
    network = config["network"]
    network[part] = {**(network[part] or {}), **change}
    (tmp_path / "g" / "config.json").write_text(json.dumps(config))
    one, other = annotator(generator), annotator(str(tmp_path / "g"))
    assert one.generator_fingerprint == other.generator_fingerprint
    assert one.cache_identity() != other.cache_identity()


def test_endlessly_many_views_of_a_face_are_refused_by_the_cache(generator: str, tmp_path: Path, capsys: Any) -> None:
    args = command(generator, tmp_path / "run", f"--model.feature_cache={tmp_path / 'c'}")
    with pytest.raises(SystemExit):
        train.main([*args, "--data.augmentation.enabled=true"])
    assert "found data.augmentation.enabled=true with cached_views=null" in capsys.readouterr().err


def test_each_view_of_a_face_is_read_once_whatever_the_seed(generator: str, passes: list[int], tmp_path: Path) -> None:
    more = [f"--model.feature_cache={tmp_path / 'cache'}", "--data.augmentation.enabled=true"]
    more += ["--data.augmentation.cached_views=2", "--trainer.max_epochs=12"]
    train.main(command(generator, tmp_path / "first", *more))
    assert sum(passes) == 1 + 2 * 24 + 12  # one to learn the shapes; two views, no mirror images; validation
    passes.clear()
    train.main(command(generator, tmp_path / "second", *more, "--seed_everything=7"))
    assert sum(passes) == 1


def test_new_views_need_no_pass(generator: str, passes: list[int], tmp_path: Path) -> None:
    more = [*TRUNK_ARGS, f"--model.feature_cache={tmp_path / 'cache'}", "--data.augmentation.enabled=true"]
    more += [
        "--data.augmentation.cached_views=1",
        "--data.augmentation.uncached_fraction=0.3",
        "--trainer.max_epochs=8",
    ]
    module = train.main(command(generator, tmp_path / "run", *more)).model
    assert sum(passes) == 1 + 24 + 12  # one to learn the shapes; one view; validation
    assert len(module._cache) == 24 + 12


def test_a_face_without_maps_is_seen_by_its_latents_alone(generator: str) -> None:
    module = annotator(generator, **TRUNK).eval()
    module._trainer = type("T", (), {"global_step": 0, "global_rank": 0, "datamodule": None, "barebones": False})()
    image, alone = faces(4), torch.tensor([False, True, False, True])
    batch: Any = {"image": image, "is_synthetic": torch.zeros(4, dtype=torch.bool), "is_uncached": alone}
    logits, whole = module._training_logits(batch, 0), module(image)
    torch.testing.assert_close(logits[~alone], whole[~alone])
    assert not torch.isclose(logits[alone], whole[alone]).all(1).any()
    other: Any = {**batch, "image": torch.where(alone[:, None, None, None], image, image.flip(0))}
    torch.testing.assert_close(module._training_logits(other, 0)[alone], logits[alone])
    batch["is_synthetic"] = torch.tensor([True, True, False, False])
    torch.testing.assert_close(module._training_logits(batch, 0), logits)
    batch["is_uncached"] = torch.tensor([True, True, True, False])  # too few for the maps' layers: read them all
    torch.testing.assert_close(module._training_logits(batch, 0), whole)


def test_new_views_without_a_backbone_are_refused(generator: str, tmp_path: Path, capsys: Any) -> None:
    more = [f"--model.feature_cache={tmp_path / 'cache'}", "--data.augmentation.enabled=true"]
    more += ["--data.augmentation.cached_views=2", "--data.augmentation.uncached_fraction=0.5"]
    with pytest.raises(SystemExit):
        train.main(command(generator, tmp_path / "run", *more))
    assert "data.augmentation.uncached_fraction=0.5: found no model.backbone" in capsys.readouterr().err


def test_another_label_space_in_the_data_is_refused(generator: str, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        train.main([*command(generator, tmp_path / "run"), "--data.reader.init_args.label_space=basic7"])
    assert "model.label_space is neutral, happy, sad, but the data has neutral" in capsys.readouterr().err


def test_synthetic_faces_are_read_but_not_cached(generator: str, tmp_path: Path) -> None:
    module, image = annotator(generator, flip=0.0), faces(4)
    module._cache = FeatureCache(tmp_path, module.cache_identity(), module.feature_width)
    module._trainer = type("T", (), {"global_step": 0, "global_rank": 0, "datamodule": None, "barebones": False})()
    synthetic = torch.tensor([True, False, True, False])
    for kept, fresh in zip(module._training_maps(image, synthetic, 0), module.read(image), strict=True):
        torch.testing.assert_close(kept, fresh, atol=2e-2, rtol=2e-3)
    assert len(module._cache) == 2


def test_features_tell_expressions_apart(generator: str, tmp_path: Path) -> None:
    """A head on random features learns bright from dark: the way from pixels to labels carries signal."""
    module = annotator(generator, dropout=0.0, drop_rate=0.0)
    image = faces(30) * 0.2
    label = torch.arange(30) % 3
    image = image + label[:, None, None, None] * 0.3
    maps = module.read(image)
    optimizer = torch.optim.AdamW(module.head.parameters(), 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(module._classify(maps), label).backward()
        optimizer.step()
    module.eval()
    assert (module.predict_probabilities(image).argmax(1) == label).float().mean() > 0.9


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_share_one_cache_and_one_temperature(generator: str, tmp_path: Path) -> None:
    args = command(generator, tmp_path / "run", f"--model.feature_cache={tmp_path / 'cache'}", "--trainer.devices=2")
    args += [*TRUNK_ARGS, "--data.augmentation.enabled=true", "--data.augmentation.cached_views=2"]
    args += ["--data.augmentation.uncached_fraction=0.3", "--trainer.precision=bf16-mixed"]
    args += ["--data.reader.init_args.count={train: 32, val: 16, test: 16}"]  # whole batches: no row is drawn twice
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = run_to_end(
        [sys.executable, str(PROJECT / "train.py"), *args, "--trainer.strategy=ddp"], cwd=PROJECT, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "cache").iterdir()
    keys = [row.tobytes() for shard in folder.glob("shard-*") for row in np.load(shard / "keys.npy")]
    assert len(list(folder.glob("shard-*"))) >= 2 and len(set(keys)) == len(keys)  # nobody read what another had
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["world_size"] == 2 and summary["counts"]["real"] == 2 * 2 * 2 * 8  # full batches
    loaded = LabelAnnotator.load_trained(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert float(loaded.temperature) == pytest.approx(summary["metrics"]["val/temperature"], abs=1e-5)
