from __future__ import annotations

import csv
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.optim import Optimizer

import train
from callbacks.generator_test import GeneratorTest
from callbacks.recording.run_checkpoint import RunCheckpoint
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.readers import DrawnReader
from datamodules.rows.source_faces import training_sources
from lightning_modules.augmenter import SemanticAugmenter
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from synfer.foundation.module_file import kind_of
from synfer.optimisation.schedule import schedule_factor
from synfer.synthesis.faces import Faces
from synfer.synthesis.synthesiser import Synthesiser, TakesSources, load_synthesiser
from synfer.synthesis.vae_gan.perturbation import PerturbationSettings
from tests.fixtures.tiny_augmenter import tiny_augmenter
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import NAMES, SIDE, save_checkpoint, tiny_classifier, tiny_generator


def tiny_data(
    rows: int = 24, label_space: tuple[str, ...] = NAMES, side: int = SIDE, **changes: Any
) -> ExpressionDataModule:
    sizes = {"train": rows, "val": 8, "test": 12}
    tables = {split: tiny_table(n, split, side, label_space=label_space) for split, n in sizes.items()}
    settings: dict[str, Any] = {"batch_size": 8, "eval_batch_size": 5, "seed": 0, **changes}
    return ExpressionDataModule(TinyReader(**tables), augmentation=Augmentation(enabled=False), **settings)


def make_trainer(folder: Path, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": folder,
    }
    return Trainer(**{**settings, **changes})


def fit(augmenter: SemanticAugmenter, folder: Path, **changes: Any) -> Trainer:
    trainer = make_trainer(folder, **changes)
    trainer.fit(augmenter, datamodule=tiny_data())
    return trainer


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


class Watch(Callback):
    """Notes gradients, rates and what is logged at each step."""

    def __init__(self) -> None:
        self.before: list[float] = []
        self.norms: list[tuple[float, float]] = []
        self.rates: list[tuple[float, float]] = []
        self.logged: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.before.append(norm_of([p for group in optimizer.param_groups for p in group["params"]]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        networks = pl_module.networks
        parts = ([*networks.encoder.parameters(), *networks.decoder.parameters()], networks.discriminator.parameters())
        self.norms.append((norm_of(list(parts[0])), norm_of(list(parts[1]))))
        first, second = trainer.optimizers
        self.rates.append((first.param_groups[0]["lr"], second.param_groups[0]["lr"]))
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def norm_of(parameters: list[Any]) -> float:
    return float(torch.nn.utils.get_total_norm([p.grad for p in parameters]))


# ---------------------------------------------------------------- training


def test_a_fit_rebuilds_faces_better(tmp_path: Path) -> None:
    augmenter = tiny_augmenter(label_space="basic7", image_size=32)
    reader = DrawnReader(count={"train": 64, "val": 16, "test": 7}, image_size=32, label_space="basic7")
    data = ExpressionDataModule(reader, batch_size=16, seed=0, augmentation=Augmentation(enabled=False))
    trainer = make_trainer(tmp_path, max_epochs=15, limit_val_batches=1.0)
    before = trainer.validate(augmenter, datamodule=data, verbose=False)[0]
    trainer.fit(augmenter, datamodule=data)
    after = trainer.callback_metrics
    assert after["val/psnr"] > before["val/psnr"] + 1.5 and after["val/loss"] < 0.8 * before["val/loss"]
    assert after["val/kl"] > 0


def test_each_network_learns_at_each_step(tmp_path: Path) -> None:
    augmenter = tiny_augmenter()
    before = weights(augmenter)
    fit(augmenter, tmp_path, max_steps=3)  # the first leaves what comes before a convolution of zeros, the last is none
    untouched = set(before) - changed(before, weights(augmenter))
    assert untouched <= {"networks.discriminator.output.bias"}  # real and made faces pull alike


@pytest.mark.parametrize("steps", [1, 7, 30])
def test_global_step_counts_batches(tmp_path: Path, steps: int) -> None:
    augmenter, watch = tiny_augmenter(ema_decay=0.9), Watch()
    trainer = fit(augmenter, tmp_path, max_steps=steps, max_epochs=-1, callbacks=[watch])
    assert trainer.global_step == steps == len(watch.norms) == trainer.fit_loop.epoch_loop.total_batch_idx + 1
    assert augmenter.ema is not None and augmenter.ema.num_updates == steps
    for schedule in trainer.lr_scheduler_configs:
        assert schedule.scheduler.last_epoch == steps


def test_both_rates_follow_the_schedule(tmp_path: Path) -> None:
    augmenter, watch = tiny_augmenter(discriminator_learning_rate=5e-4, warmup_fraction=0.25), Watch()
    fit(augmenter, tmp_path, max_steps=8, max_epochs=-1, callbacks=[watch])
    factor = schedule_factor("cosine", 8, 0.25)
    for step, (first, second) in enumerate(watch.rates, 1):
        assert (first, second) == pytest.approx((2e-3 * factor(step), 5e-4 * factor(step)))


def test_both_groups_are_clipped_after_callbacks_have_seen_them(tmp_path: Path) -> None:
    free, clipped = Watch(), Watch()
    fit(tiny_augmenter(clip_norm=None), tmp_path, max_steps=1, callbacks=[free])
    fit(tiny_augmenter(clip_norm=1e-3), tmp_path, max_steps=1, callbacks=[clipped])
    assert min(free.norms[0]) > 1e-2
    assert clipped.norms[0] == pytest.approx((1e-3, 1e-3), rel=1e-2)
    assert clipped.before == free.before == pytest.approx([free.norms[0][0]])


def test_every_term_is_logged(tmp_path: Path) -> None:
    watch = Watch()
    settings = {"pixel_weight": 2.0, "adversarial_start": 0.0, "adversarial_rise": 0.0, "r1_every": 2}
    fit(tiny_augmenter(loss=settings), tmp_path, max_steps=2, callbacks=[watch])
    terms = {"loss", "kl", "adversarial_weight", "real_logit", "made_logit"}
    losses = {f"{name}_loss" for name in ("reconstruction", "feature", "adversarial", "discriminator", "r1")}
    assert {name.removeprefix("train/") for name in watch.logged[0]} == terms | losses
    step = watch.logged[0]
    total = 2 * step["train/reconstruction_loss"] + step["train/feature_loss"] + step["train/discriminator_loss"]
    total += step["train/kl"] / (3 * SIDE * SIDE) + 0.01 * 2 * step["train/r1_loss"]
    total += step["train/adversarial_weight"] * step["train/adversarial_loss"]
    assert step["train/loss"] == pytest.approx(total, rel=1e-4)


def test_noise_is_keyed_by_rank_step_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    augmenter = tiny_augmenter()
    seen: list[torch.Tensor] = []
    augmenter.networks.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    monkeypatch.setattr(SemanticAugmenter, "_step", lambda self, loss: None)
    monkeypatch.setattr(SemanticAugmenter, "log", lambda *args, **settings: None)
    monkeypatch.setattr(SemanticAugmenter, "log_dict", lambda *args, **settings: None)
    image = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    batch: Any = {"image": image, "label": torch.tensor([0, 1, 2, 0])}

    def draw(rank: int, step: int, batch_idx: int) -> torch.Tensor:
        monkeypatch.setattr(SemanticAugmenter, "global_rank", property(lambda self: rank))
        monkeypatch.setattr(SemanticAugmenter, "global_step", property(lambda self: step))
        augmenter.training_step(batch, batch_idx)
        return seen[-1]

    first = draw(0, 3, 3)
    assert torch.equal(first, draw(0, 3, 3))
    for other in (draw(1, 3, 3), draw(0, 4, 3), draw(0, 3, 4)):
        assert (first - other).abs().amax() > 0.1
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert not torch.equal(first, draw(0, 3, 3))


def test_grey_faces_in_bfloat16(tmp_path: Path) -> None:
    augmenter = tiny_augmenter(network={"widths": (8, 8), "channels": 1, "class_conditional": False}, ema_decay=0.9)
    trainer = fit(augmenter, tmp_path, precision="bf16-mixed", limit_val_batches=1.0)
    assert trainer.global_step == 3 and trainer.callback_metrics["val/psnr"] > 0
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in augmenter.parameters())


@pytest.mark.parametrize(
    ("changes", "stored"),
    [
        ({"every_n_train_steps": 2}, ["epoch=0-step=2", "epoch=1-step=4", "last"]),
        ({"train_time_interval": timedelta(0)}, [*(f"epoch={n // 3}-step={n}" for n in (1, 2, 4, 5)), "last"]),
    ],
)
def test_checkpoints_are_written_as_with_one_optimiser(
    tmp_path: Path, changes: dict[str, Any], stored: list[str]
) -> None:
    checkpoint = RunCheckpoint(tmp_path / "checkpoints", save_top_k=-1, save_last=True, **changes)
    fit(tiny_augmenter(), tmp_path, max_steps=5, max_epochs=-1, callbacks=[checkpoint], enable_checkpointing=True)
    assert sorted(path.stem for path in (tmp_path / "checkpoints").glob("*.ckpt")) == stored


# ---------------------------------------------------------------- evaluation


class InsideValidation(Callback):
    """Notes the weights that a validation sees."""

    def __init__(self) -> None:
        self.seen: dict[str, torch.Tensor] = {}

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.seen = weights(pl_module.networks)


def test_validation_sees_the_averages_of_encoder_and_decoder(tmp_path: Path) -> None:
    augmenter, inside = tiny_augmenter(ema_decay=0.9), InsideValidation()
    fit(augmenter, tmp_path, max_epochs=2, limit_val_batches=1, callbacks=[inside])
    assert augmenter.ema is not None and not augmenter.ema.is_swapped
    average, raw = augmenter.ema.average, weights(augmenter.networks)
    assert set(average) == {name for name in raw if not name.startswith("discriminator.")}
    assert changed(raw, inside.seen) == set(average)
    assert all(torch.equal(inside.seen[name], tensor) for name, tensor in average.items())


def test_validation_is_a_mean_over_faces_in_decibel(tmp_path: Path) -> None:
    augmenter, data = tiny_augmenter(), tiny_data()
    found = make_trainer(tmp_path, limit_val_batches=1.0).validate(augmenter, datamodule=data, verbose=False)[0]
    image = torch.cat([batch["image"] for batch in data.val_dataloader()]).float()  # eight faces, in batches of five
    image = (image / 255).expand(-1, 3, -1, -1)
    with torch.no_grad():
        mean, _ = augmenter.networks.encoder(image * 2 - 1)
        label = torch.cat([batch["label"] for batch in data.val_dataloader()])
        made = (augmenter.networks.decoder(mean, label) / 2 + 0.5).clamp(0, 1)
    error = ((made - image) ** 2).mean((1, 2, 3))
    assert found["val/psnr"] == pytest.approx(float((-10 * error.log10()).mean()), abs=1e-3)


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SemanticAugmenter, Path]:
    folder = tmp_path_factory.mktemp("trained")
    augmenter = tiny_augmenter(ema_decay=0.5)
    fit(augmenter, folder).save_checkpoint(folder / "augmenter.ckpt")
    return augmenter, folder / "augmenter.ckpt"


def test_a_checkpoint_is_loaded_with_its_averages(trained: tuple[SemanticAugmenter, Path]) -> None:
    augmenter, path = trained
    assert kind_of(path) == "vae_gan"
    loaded = load_synthesiser(path)
    assert isinstance(loaded, SemanticAugmenter) and not loaded.training and loaded.ema is None
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded.label_space == NAMES and loaded.image_size == SIDE
    found, raw = weights(loaded.networks), weights(augmenter.networks)
    assert augmenter.ema is not None
    assert all(torch.equal(found[name], tensor) for name, tensor in augmenter.ema.average.items())
    assert changed(found, raw) == set(augmenter.ema.average)
    with augmenter.ema.swapped():
        assert loaded.weights_fingerprint() == augmenter.weights_fingerprint()


def test_a_folder_holds_what_makes_faces_and_no_more(trained: tuple[SemanticAugmenter, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    augmenter, path = trained
    augmenter.save_trained(tmp_path / "folder")
    stored = load_file(tmp_path / "folder" / "model.safetensors")
    assert {name.split(".")[1] for name in stored} == {"encoder", "decoder"}
    assert all(tensor.dtype == torch.float16 for tensor in stored.values())
    assert kind_of(tmp_path / "folder") == "vae_gan"
    state = torch.get_rng_state()
    loaded = SemanticAugmenter.load_trained(tmp_path / "folder")
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.exported_from == SemanticAugmenter.load_trained(path).weights_fingerprint()
    assert loaded.hparams["network"]["widths"] in ([8, 16], (8, 16))
    original = weights(SemanticAugmenter.load_trained(path).networks)
    for name, tensor in weights(loaded.networks).items():
        if not name.startswith("discriminator."):
            torch.testing.assert_close(tensor, original[name], atol=1e-3, rtol=1e-3)


def test_the_fingerprint_is_that_of_encoder_and_decoder() -> None:
    augmenter = tiny_augmenter()
    names = ("discriminator.output", "decoder.output", "encoder.output")
    prints = [augmenter.weights_fingerprint()]
    for name in names:
        torch.nn.init.zeros_(augmenter.networks.get_submodule(name).weight)
        prints.append(augmenter.weights_fingerprint())
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_another_kind_of_file_is_refused(trained: tuple[SemanticAugmenter, Path], tmp_path: Path) -> None:
    generator = save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    with pytest.raises(ValueError, match="expected one of a SemanticAugmenter, found another model's"):
        SemanticAugmenter.load_trained(generator)
    with pytest.raises(ValueError, match="expected one of an ExpressionGenerator, found another model's"):
        ExpressionGenerator.load_trained(trained[1])
    with pytest.raises(ValueError, match="no checkpoint of ExpressionClassifier"):
        ExpressionClassifier.load_trained(trained[1])
    tiny_generator().save_trained(tmp_path / "folder")
    with pytest.raises(
        ValueError, match=r"config of an? augmenter '.*config.json': found the kind diffusion, expected v"
    ):
        SemanticAugmenter.load_trained(tmp_path / "folder")
    save_checkpoint(tiny_classifier(), tmp_path / "classifier.ckpt")
    with pytest.raises(ValueError, match="expected one of a SemanticAugmenter"):
        SemanticAugmenter.load_trained(tmp_path / "classifier.ckpt")
    with pytest.raises(
        FileNotFoundError, match=r"augmenter '.*none': no such file or folder, expected a checkpoint of"
    ):
        SemanticAugmenter.load_trained(tmp_path / "none")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"learning_rate": 0.0}, "model.learning_rate: found 0.0, expected a number above 0"),
        (
            {"discriminator_learning_rate": -1.0},
            "model.discriminator_learning_rate: found -1.0, expected a number above",
        ),
        ({"weight_decay": -0.1}, "model.weight_decay: found -0.1, expected a number of at least 0"),
        ({"warmup_fraction": 1.0}, r"model.warmup_fraction: found 1.0, expected a share in \[0, 1\)"),
        ({"clip_norm": 0.0}, "model.clip_norm: found 0.0, expected a number above 0 or null"),
        ({"ema_decay": 1.0}, "EMA decay: found 1.0"),
        ({"image_size": 18}, "model.image_size: found 18, expected a multiple of 4"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        tiny_augmenter(**changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"gradient_clip_val": 0.5},
            r"^trainer.gradient_clip_val: found 0.5, expected none with two optimisers \(model.clip_norm\)$",
        ),
        (
            {"accumulate_grad_batches": 2},
            r"^trainer.accumulate_grad_batches: found 2, expected 1 with two optimisers \(a larger data.batch_size\)$",
        ),
        ({"max_epochs": -1}, "a schedule needs an end: set trainer.max_epochs or trainer.max_steps"),
    ],
)
def test_trainers_that_do_not_fit_are_refused(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=expected):
        fit(tiny_augmenter(), tmp_path, **changes)


def test_the_trainer_s_clipping_is_no_matter_for_an_evaluation(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, gradient_clip_val=0.5, limit_val_batches=1)
    assert "val/psnr" in trainer.validate(tiny_augmenter(), datamodule=tiny_data(), verbose=False)[0]


def test_scaled_losses_are_refused() -> None:
    augmenter = tiny_augmenter()
    augmenter._trainer = SimpleNamespace(precision="16-mixed")  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"trainer.precision: found 16-mixed, expected bf16-mixed or 32-true"):
        augmenter.setup("fit")
    augmenter.setup("validate")


def test_other_data_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(
        ValueError, match=r"data has the label space \['neutral', 'sad'\], the augmenter \['neutral', 'h"
    ):
        trainer.fit(tiny_augmenter(), datamodule=tiny_data(label_space=("neutral", "sad")))
    with pytest.raises(
        ValueError, match=r"model.image_size is 16, but the data has images of 24x24: set data.image_size"
    ):
        make_trainer(tmp_path).fit(tiny_augmenter(), datamodule=tiny_data(side=24))
    data = tiny_data(side=24)
    data.image_size = 24
    with pytest.raises(ValueError, match=r"data.image_size: found 24, expected 16 \(model.image_size\)"):
        make_trainer(tmp_path).fit(tiny_augmenter(), datamodule=data)


def test_step_of_loggers_is_that_of_batches(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    fit(tiny_augmenter(), tmp_path, max_steps=3, logger=logger, log_every_n_steps=1)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [0, 1, 2]


# ---------------------------------------------------------------- synthesis


class KeptFaces(Callback):
    """Keeps what a prediction makes."""

    def __init__(self) -> None:
        self.made: list[Faces] = []

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        self.made.append(outputs)


def test_a_set_is_made_from_training_faces(trained: tuple[SemanticAugmenter, Path], tmp_path: Path) -> None:
    augmenter, path = tiny_augmenter(ema_decay=0.5), trained[1]
    sets = tiny_data_of_a_set("happy", "sad")
    kept = KeptFaces()
    trainer = make_trainer(tmp_path, callbacks=[kept])
    trainer.predict(augmenter, datamodule=sets, ckpt_path=path, weights_only=True, return_predictions=False)
    (faces,) = kept.made
    assert isinstance(augmenter, Synthesiser) and isinstance(augmenter, TakesSources)
    assert faces.images.shape == (4, 3, SIDE, SIDE) and [NAMES[k] for k in faces.label.tolist()] == ["happy", "sad"] * 2
    names = dict(zip(sets.train_table.sample_id.tolist(), sets.train_table.label.tolist(), strict=True))
    assert [names[source] for source in faces.layout_source] == faces.label.tolist()
    loaded = SemanticAugmenter.load_trained(path)
    loaded.use_sources(training_sources(sets, "source face"), ["happy", "sad"])
    again = loaded.synthesise(faces.request)
    assert torch.equal(again.images, faces.images)  # of the averaged weights both times
    assert loaded.recipe() == augmenter.recipe() != {}


def tiny_data_of_a_set(*expressions: str, rows: int = 24) -> ExpressionDataModule:
    return tiny_data(rows, predict_split="synthesis", synthesis_count=4, synthesis_expressions=list(expressions))


def test_an_expression_without_a_training_face_is_refused(
    trained: tuple[SemanticAugmenter, Path], tmp_path: Path
) -> None:
    data = tiny_data_of_a_set("happy", "sad", rows=2)  # one neutral, one happy
    with pytest.raises(
        ValueError, match=r"perturbation.mode=noise: found 0 training faces of 'sad', expected at least 1"
    ):
        make_trainer(tmp_path).predict(tiny_augmenter(), datamodule=data, ckpt_path=trained[1], weights_only=True)


def test_a_grid_has_a_row_for_each_expression_that_was_learned(tmp_path: Path) -> None:
    augmenter = tiny_augmenter(grid_samples=3)
    trainer = make_trainer(tmp_path, limit_val_batches=1)
    trainer.fit(augmenter, datamodule=tiny_data(rows=2))
    assert augmenter._grid_names == ["neutral", "happy"]
    (path,) = (tmp_path / "samples").glob("grid-step*.png")
    two = tiny_augmenter(grid_samples=3)
    make_trainer(tmp_path / "all", limit_val_batches=1).fit(two, datamodule=tiny_data())
    (other,) = (tmp_path / "all" / "samples").glob("grid-step*.png")
    heights = [Image.open(picture).size[1] for picture in (path, other)]
    assert heights[0] < heights[1]


def test_settings_of_synthesis_are_kept_in_files(tmp_path: Path) -> None:
    augmenter = tiny_augmenter(perturbation={"mode": "interpolate", "strength": 0.3})
    save_checkpoint(augmenter, tmp_path / "augmenter.ckpt")
    augmenter.save_trained(tmp_path / "folder")
    for path in (tmp_path / "augmenter.ckpt", tmp_path / "folder"):
        loaded = SemanticAugmenter.load_trained(path)
        assert loaded.sampling == PerturbationSettings("interpolate", 0.3)


# ---------------------------------------------------------------- as a user starts it


def test_checkpoints_of_others_are_refused_on_the_command_line(
    trained: tuple[SemanticAugmenter, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = Path(train.__file__).parent / "configs"
    save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    command = ["fit", f"--config={configs / 'data/drawn.yaml'}", f"--config={configs / 'augmenter/tiny.yaml'}"]
    command += ["--data.reader.init_args.count={train: 16, val: 8, test: 8}", f"--run_dir={tmp_path / 'run'}"]
    large = tiny_augmenter(label_space="basic7", image_size=24)
    expected = {
        tmp_path / "generator.ckpt": "found weights of another kind of model",
        save_checkpoint(large, tmp_path / "large.ckpt"): "as in this SemanticAugmenter (",
        trained[1]: "label space of the checkpoint: found neutral, happy, sad, expected neutral, happy, sad, sur",
    }
    for path, line in expected.items():
        with pytest.raises(SystemExit) as stopped:
            train.main([*command, f"--ckpt_path={path}"])
        assert stopped.value.code == 2
        (said,) = [row for row in capsys.readouterr().err.splitlines() if row.startswith("error: ")]
        assert line in said and not (tmp_path / "run").exists()


# ---------------------------------------------------------------- a classifier that looks on


RESNET: dict[str, Any] = {"backbone": "resnet10t", "backbone_kwargs": {"stem_width": 4, "channels": [4, 4, 8, 8]}}


def saved_guide(folder: Path) -> str:
    return str(save_checkpoint(tiny_classifier(NAMES, 5, **RESNET), folder / "guide.ckpt"))


def test_a_guide_is_heard_frozen_and_in_no_file(tmp_path: Path) -> None:
    guide = saved_guide(tmp_path)
    loss = {"perceptual_weight": 1.0, "expression_weight": 0.5, "relabelled_share": 0.25, "adversarial_start": 0.0}
    augmenter, watch = tiny_augmenter(guide=guide, loss=loss), Watch()
    trainer = fit(augmenter, tmp_path / "run", callbacks=[watch])
    assert {"train/perceptual_loss", "train/expression_loss"} <= watch.logged[-1].keys()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    augmenter.save_trained(tmp_path / "folder")
    Path(guide).unlink()  # whoever makes faces does not need it
    for path in (tmp_path / "last.ckpt", tmp_path / "folder"):
        loaded = SemanticAugmenter.load_trained(path)
        assert len(loaded.taught_by) == 1 and loaded.taught_by == augmenter.taught_by
        assert not [name for name in loaded.state_dict() if "backbone" in name]


def test_the_network_that_it_learned_by_is_no_judge(tmp_path: Path) -> None:
    guide = saved_guide(tmp_path)
    augmenter = tiny_augmenter(guide=guide, loss={"expression_weight": 0.5})
    trainer = fit(augmenter, tmp_path / "run")
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    tester = make_trainer(tmp_path, callbacks=[GeneratorTest(samples=6, judge=guide, nearest_training=0)])
    with pytest.raises(
        ValueError, match=r"test.judge .* is the network that the generator learned by \(its model.guide"
    ):
        tester.test(SemanticAugmenter.load_trained(tmp_path / "last.ckpt"), tiny_data(), verbose=False)


def test_all_guides_of_a_training_are_remembered(tmp_path: Path) -> None:
    guides = [str(save_checkpoint(tiny_classifier(NAMES, n, **RESNET), tmp_path / f"{n}.ckpt")) for n in (5, 6)]
    fit(tiny_augmenter(guide=guides[0], loss={"expression_weight": 0.5}), tmp_path, max_epochs=1).save_checkpoint(
        tmp_path / "first.ckpt"
    )
    other = tiny_augmenter(guide=guides[1], loss={"expression_weight": 0.5})
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(other, datamodule=tiny_data(), ckpt_path=tmp_path / "first.ckpt", weights_only=True)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    taught = SemanticAugmenter.load_trained(tmp_path / "last.ckpt")
    assert len(set(taught.taught_by)) == 2
    for guide in guides:
        test = GeneratorTest(samples=6, judge=guide, nearest_training=0)
        with pytest.raises(ValueError, match=r"is the network that the generator learned by"):
            make_trainer(tmp_path, callbacks=[test]).test(taught, tiny_data(), verbose=False)
        again = make_trainer(tmp_path, callbacks=[GeneratorTest(samples=6, judge=guide, nearest_training=0)])
        with pytest.raises(ValueError, match=r"is the network that the generator learned by"):  # as the commands do it
            again.test(
                tiny_augmenter(), tiny_data(), ckpt_path=tmp_path / "last.ckpt", verbose=False, weights_only=True
            )
    content = torch.load(tmp_path / "first.ckpt", weights_only=True)
    content["hyper_parameters"]["_taught_by"] = taught.taught_by[0]  # as the first files have it
    torch.save(content, tmp_path / "first.ckpt")
    assert SemanticAugmenter.load_trained(tmp_path / "first.ckpt").taught_by == taught.taught_by[:1]


def test_a_guide_that_nobody_looks_at_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        augmenter = tiny_augmenter(guide="nowhere.ckpt")
        fit(augmenter, tmp_path)
    assert "model.guide: not looked at, as model.loss.perceptual_weight" in caplog.text and augmenter.taught_by == ()


def test_a_checkpoint_of_as_many_other_expressions_is_refused(
    trained: tuple[SemanticAugmenter, Path], tmp_path: Path
) -> None:
    other = (NAMES[1], NAMES[0], *NAMES[2:])
    trainer = make_trainer(tmp_path, limit_val_batches=1)
    with pytest.raises(ValueError, match=r"^label space of the checkpoint: found neutral, happy, sad, expected hap"):
        trainer.validate(
            tiny_augmenter(label_space=list(other), ema_decay=0.5),
            datamodule=tiny_data(label_space=other),
            ckpt_path=trained[1],
            weights_only=True,
        )


def test_losses_that_need_more_than_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model.loss.relabelled_share: found 0.5, expected 0 where network.class_cond"
    ):
        tiny_augmenter(loss={"relabelled_share": 0.5}, network={"widths": (8, 16), "class_conditional": False})
    alone = tiny_augmenter(loss={"perceptual_weight": 1.0})  # whoever makes faces needs no guide
    with pytest.raises(ValueError, match=r"model.guide: found None, expected a classifier's checkpoint, for loss.perc"):
        fit(alone, tmp_path)


def test_a_guide_beside_folds_is_refused(tmp_path: Path) -> None:
    augmenter = tiny_augmenter(guide=saved_guide(tmp_path), loss={"expression_weight": 0.5})
    with pytest.raises(ValueError, match=r"model.guide beside data.folds=2: the guide may have learned from the rows"):
        make_trainer(tmp_path).fit(augmenter, datamodule=tiny_data(folds=2, fold=0))
