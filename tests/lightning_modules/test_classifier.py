from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler

from lightning_modules.classifier import ExpressionClassifier
from synfer.faces.expressions import EXPRESSIONS
from tests.fixtures.tiny_generator import tiny_generator

CONFIGS = Path(__file__).parents[2] / "configs" / "classifier"
NAMES = ["neutral", "happy", "sad"]
TINY: dict[str, Any] = {
    "label_space": NAMES,
    "backbone": "resnet10t",
    "backbone_kwargs": {"channels": [4, 4, 8, 8], "stem_width": 4},
    "stem": "native",
    "image_size": 24,
    "learning_rate": 0.05,
    "ema_decay": 0.9,
}


def tiny(**changes: Any) -> ExpressionClassifier:
    torch.manual_seed(0)
    return ExpressionClassifier(**{**TINY, **changes})


def make_batch(n: int, seed: int = 0, synthetic: bool = True) -> dict[str, Any]:
    """Faces whose brightness tells the class, so that three steps of training can learn it."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % len(NAMES)
    noise = 0.2 * torch.rand(n, 3, 24, 24, generator=generator)
    return {
        "image": noise + 0.35 * label.view(-1, 1, 1, 1),
        "label": label,
        "soft_label": F.one_hot(label, len(NAMES)).float(),
        "au": torch.full((n, 41), math.nan),
        "caption": ["a face"] * n,
        "is_synthetic": (torch.arange(n) % 2 == 0) & synthetic,
        "sample_id": [f"real-{seed}-{i}" for i in range(n)],
    }


def _identity(batches: list[dict[str, Any]]) -> dict[str, Any]:
    return batches[0]


class _Table:
    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts

    def class_counts(self) -> dict[str, int]:
        return self.counts


class TinyData(LightningDataModule):
    """Batches made beforehand; ranks get disjoint ones and none is repeated."""

    def __init__(self, label_space: tuple[str, ...] = tuple(NAMES), train: int = 4, val: int = 3) -> None:
        super().__init__()
        self.label_space = label_space
        self.train_table = _Table({"neutral": 6, "happy": 2, "sad": 0})
        self.train = [make_batch(12, seed) for seed in range(train)]
        self.val = [make_batch(n, 100 + n) for n in (12, 9, 6, 5)[:val]]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=1, collate_fn=_identity)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        sampler = DistributedSampler(self.val, shuffle=False) if torch.distributed.is_initialized() else None  # type: ignore[arg-type]
        return DataLoader(self.val, batch_size=1, collate_fn=_identity, sampler=sampler)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        return self.val_dataloader()


def trainer(folder: Path, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return Trainer(**{**settings, **changes})


# ---------------------------------------------------------------- the network


def test_forward_takes_any_size_and_normalises_itself() -> None:
    classifier = tiny(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25]).eval()
    seen: list[torch.Tensor] = []
    classifier.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    grey_view = torch.rand(2, 1, 48, 48).expand(-1, 3, -1, -1)  # how grey data sets come: no memory for the copies
    assert classifier(grey_view).shape == (2, 3)
    assert classifier(torch.full((1, 3, 24, 24), 0.75)).shape == (1, 3)
    assert seen[0].shape == (2, 3, 24, 24)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(seen[1], torch.ones(1, 3, 24, 24))


def test_one_channel_sees_the_mean_over_colours() -> None:
    classifier = tiny(in_channels=1).eval()
    image = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(classifier(image), classifier(image.mean(1, keepdim=True).expand(-1, 3, -1, -1)))


def test_flipped_probabilities_do_not_depend_on_the_side() -> None:
    classifier = tiny().eval()
    image = torch.rand(3, 3, 24, 24)
    with torch.no_grad():
        p = classifier.predict_probabilities(image)
        torch.testing.assert_close(p, classifier.predict_probabilities(image.flip(-1)))
        torch.testing.assert_close(p.sum(1), torch.ones(3))
        torch.testing.assert_close(classifier.predict_probabilities(image, flip=False), classifier(image).softmax(1))


def test_gradients_reach_the_image_of_a_frozen_classifier() -> None:
    classifier = tiny().eval().requires_grad_(False)
    image = torch.rand(2, 3, 48, 48, requires_grad=True)
    classifier(image).log_softmax(1)[:, 1].sum().backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0


def test_fingerprint_tells_weights_apart() -> None:
    classifier = tiny()
    same = copy.deepcopy(classifier)
    assert classifier.weights_fingerprint() == same.weights_fingerprint()
    with torch.no_grad():
        next(same.backbone.parameters())[0, 0, 0, 0] += 1e-3
    assert classifier.weights_fingerprint() != same.weights_fingerprint()
    assert len(classifier.weights_fingerprint()) == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_rate": 1.0}, r"model\.drop_rate: found 1.0"),
        ({"label_smoothing": -0.1}, r"model\.label_smoothing"),
        ({"learning_rate": 0.0}, r"model\.learning_rate: found 0.0, expected a number > 0"),
        ({"synthetic_loss_weight": -1.0}, r"model\.synthetic_loss_weight"),
        ({"class_weights": [1.0, 2.0]}, r"expected 3 numbers ≥ 0 in the order neutral, happy, sad"),
        ({"class_weights": "inverse"}, r"model\.class_weights: found inverse"),
        ({"label_space": "basic6"}, "unknown label space 'basic6'"),
        ({"label_space": ["happy", "cheerful"]}, "unknown expression 'cheerful'"),
        ({"mean": [0.5, 0.5]}, r"model\.mean: found \[0.5, 0.5\], expected 3 numbers"),
        ({"ema_decay": 1.0}, "EMA decay"),
        ({"image_size": 0}, r"model\.image_size"),
    ],
)
def test_wrong_settings_are_one_plain_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        tiny(**changes)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- the loss


def loss_of(classifier: ExpressionClassifier, batch: dict[str, Any]) -> torch.Tensor:
    classifier.eval()  # the same logits twice
    classifier.log = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    return classifier.training_step(batch, 0)  # type: ignore[arg-type]


def test_loss_is_the_smoothed_soft_cross_entropy() -> None:
    classifier, batch = tiny(label_smoothing=0.1), make_batch(6)
    batch["soft_label"] = torch.rand(6, 3).softmax(1)
    logits = classifier.eval()(batch["image"])
    expected = F.cross_entropy(logits, batch["soft_label"], label_smoothing=0.1)
    torch.testing.assert_close(loss_of(classifier, batch), expected)


def test_synthetic_samples_weigh_what_they_are_told_to() -> None:
    classifier, batch = tiny(synthetic_loss_weight=0.25), make_batch(6)
    logits = classifier.eval()(batch["image"])
    losses = F.cross_entropy(logits, batch["label"], reduction="none")
    weight = torch.where(batch["is_synthetic"], 0.25, 1.0)
    torch.testing.assert_close(loss_of(classifier, batch), (losses * weight).sum() / weight.sum())
    for name, mask in (("loss_real", ~batch["is_synthetic"]), ("loss_synthetic", batch["is_synthetic"])):
        torch.testing.assert_close(classifier.train_metrics[name].compute(), losses[mask].mean().detach())


def test_nothing_but_weightless_samples_is_no_division_by_zero() -> None:
    classifier, batch = tiny(synthetic_loss_weight=0.0), make_batch(6)
    batch["is_synthetic"][:] = True
    assert float(loss_of(classifier, batch).detach()) == 0


def test_classes_weigh_what_they_are_told_to() -> None:
    classifier, batch = tiny(class_weights=[1.0, 0.0, 3.0]), make_batch(6)
    logits = classifier.eval()(batch["image"])
    losses = F.cross_entropy(logits, batch["label"], reduction="none")
    expected = (losses * torch.tensor([1.0, 0.0, 3.0])[batch["label"]]).mean()
    torch.testing.assert_close(loss_of(classifier, batch), expected)


def test_balanced_weights_come_from_the_training_rows(tmp_path: Path) -> None:
    classifier = tiny(class_weights="balanced")
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(classifier, datamodule=TinyData())
    torch.testing.assert_close(classifier.class_weights, torch.tensor([8 / 18, 8 / 6, 0.0]))


# ---------------------------------------------------------------- training


def test_training_learns_and_logs_the_names_of_the_contract(tmp_path: Path) -> None:
    classifier, data = tiny(), TinyData()
    run = trainer(tmp_path, max_epochs=6)
    run.fit(classifier, datamodule=data)
    scores = ("accuracy", "mean_class_accuracy", "macro_f1", "ece", "loss", *(f"recall/{name}" for name in NAMES))
    expected = {f"val/{name}" for name in scores}
    expected |= {f"train/{name}" for name in ("loss", "loss_real", "loss_synthetic", "accuracy")}
    assert expected <= set(run.callback_metrics)
    assert float(run.callback_metrics["train/accuracy"]) > 0.8
    assert (tmp_path / "samples" / "confusion_val.png").is_file()
    assert (tmp_path / "samples" / "reliability_val.png").is_file()
    run.test(classifier, datamodule=data, verbose=False)
    assert {f"test/{name}" for name in scores} <= set(run.callback_metrics)
    assert float(run.callback_metrics["test/accuracy"]) > 0.8


def test_no_synthetic_loss_without_synthetic_samples(tmp_path: Path) -> None:
    data = TinyData()
    data.train = [make_batch(12, seed, synthetic=False) for seed in range(2)]
    run = trainer(tmp_path)
    run.fit(tiny(), datamodule=data)
    assert "train/loss_real" in run.callback_metrics
    assert "train/loss_synthetic" not in run.callback_metrics


def test_metrics_are_those_of_all_samples_and_of_the_averaged_weights(tmp_path: Path) -> None:
    classifier, data = tiny(), TinyData()
    run = trainer(tmp_path, max_epochs=2)
    run.fit(classifier, datamodule=data)
    raw = classifier.weights_fingerprint()
    run.validate(classifier, datamodule=data, verbose=False)
    assert classifier.weights_fingerprint() == raw  # training weights are back
    assert classifier.ema is not None
    batches = data.val
    with classifier.ema.swapped(), torch.no_grad():
        assert classifier.weights_fingerprint() != raw
        classifier.eval()
        p = torch.cat([classifier.predict_probabilities(b["image"]) for b in batches])
    label = torch.cat([b["label"] for b in batches])
    assert float(run.callback_metrics["val/accuracy"]) == pytest.approx(float((p.argmax(1) == label).float().mean()))
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(float(F.nll_loss(p.log(), label)), abs=1e-5)


def test_average_is_updated_once_per_optimiser_step(tmp_path: Path) -> None:
    classifier = tiny()
    trainer(tmp_path, accumulate_grad_batches=2).fit(classifier, datamodule=TinyData(train=5))
    assert classifier.ema is not None
    assert classifier.ema.num_updates == 3  # two full groups and the rest


def test_schedule_spans_the_whole_training(tmp_path: Path) -> None:
    classifier, data = tiny(warmup_fraction=0.25, weight_decay=0.01), TinyData()
    run = trainer(tmp_path, max_epochs=3, limit_val_batches=0)
    rates: list[float] = []

    def remember(*_: Any) -> None:
        rates.append(run.optimizers[0].param_groups[0]["lr"])

    classifier.on_train_batch_start = remember  # type: ignore[method-assign, assignment]
    run.fit(classifier, datamodule=data)
    assert len(rates) == 12
    assert rates.index(max(rates)) == 3
    assert max(rates) == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.05 * 1e-4)
    decayed, others = run.optimizers[0].param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim <= 1 for p in others["params"])


def test_a_schedule_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a schedule needs an end: set trainer.max_epochs"):
        trainer(tmp_path, max_epochs=-1).fit(tiny(), datamodule=TinyData())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_bfloat16_trains(tmp_path: Path, optimizer: str) -> None:
    run = trainer(tmp_path, precision="bf16-mixed", max_epochs=2)
    run.fit(tiny(optimizer=optimizer, learning_rate=0.005), datamodule=TinyData())
    assert math.isfinite(float(run.callback_metrics["val/loss"]))


def test_other_classes_in_the_data_are_refused(tmp_path: Path) -> None:
    data = TinyData(label_space=("happy", "neutral", "sad"))
    with pytest.raises(ValueError, match="label_space is neutral, happy, sad, but the data has happy, neutral, sad"):
        trainer(tmp_path).fit(tiny(), datamodule=data)


def test_predictions_carry_the_sample_id(tmp_path: Path) -> None:
    predicted = trainer(tmp_path).predict(tiny(), datamodule=TinyData())
    assert predicted is not None
    assert predicted[0]["sample_id"][:2] == ["real-112-0", "real-112-1"]  # type: ignore[index]
    assert predicted[0]["probabilities"].shape == (12, 3)  # type: ignore[index]
    assert predicted[0]["probabilities"].dtype == torch.float32  # type: ignore[index]


# ---------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExpressionClassifier, Path]:
    folder = tmp_path_factory.mktemp("trained")
    classifier = tiny(pretrained_path=None)
    run = trainer(folder, max_epochs=2)
    run.fit(classifier, datamodule=TinyData())
    run.save_checkpoint(folder / "last.ckpt")
    return classifier, folder / "last.ckpt"


def test_trained_classifier_loads_with_averaged_weights(trained: tuple[ExpressionClassifier, Path]) -> None:
    classifier, path = trained
    loaded = ExpressionClassifier.load_trained(path)
    assert loaded.label_space == tuple(NAMES)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert classifier.ema is not None
    classifier.eval()
    image = torch.rand(4, 3, 24, 24)
    with classifier.ema.swapped(), torch.no_grad():
        torch.testing.assert_close(loaded(image), classifier(image))
        assert loaded.weights_fingerprint() == classifier.weights_fingerprint()


def test_checkpoint_holds_plain_types_and_works_with_lightning(
    trained: tuple[ExpressionClassifier, Path], tmp_path: Path
) -> None:
    classifier, path = trained
    torch.load(path, weights_only=True)
    again = ExpressionClassifier.load_from_checkpoint(path, weights_only=True, map_location="cpu")
    assert again.weights_fingerprint() == classifier.weights_fingerprint()
    run = trainer(tmp_path)
    run.test(tiny(), datamodule=TinyData(), ckpt_path=path, verbose=False, weights_only=True)
    first = dict(run.callback_metrics)
    run.test(classifier, datamodule=TinyData(), verbose=False)
    assert {k: float(v) for k, v in first.items()} == {k: float(v) for k, v in run.callback_metrics.items()}


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_resumed_run_is_the_same_run(tmp_path: Path, optimizer: str) -> None:
    keep_all = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, resumed = tiny(optimizer=optimizer), tiny(optimizer=optimizer)
    trainer(tmp_path, max_epochs=2, enable_checkpointing=True, callbacks=[keep_all]).fit(whole, datamodule=TinyData())
    second = trainer(tmp_path, max_epochs=2)
    second.fit(resumed, datamodule=TinyData(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    assert second.global_step == 8
    assert resumed.weights_fingerprint() == whole.weights_fingerprint()
    assert whole.ema is not None
    assert resumed.ema is not None
    assert resumed.ema.num_updates == whole.ema.num_updates == 8
    for name, tensor in whole.ema.average.items():
        torch.testing.assert_close(resumed.ema.average[name], tensor, rtol=0, atol=0)


def test_an_interrupted_evaluation_does_not_lose_the_training_weights(tmp_path: Path) -> None:
    classifier, data, run = tiny(), TinyData(), trainer(tmp_path)
    run.fit(classifier, datamodule=data)
    raw = classifier.weights_fingerprint()
    broken = make_batch(6)
    broken["label"] = None
    with pytest.raises(Exception, match=r".+"):
        run.validate(classifier, dataloaders=DataLoader([broken], batch_size=1, collate_fn=_identity), verbose=False)  # type: ignore[arg-type]
    assert classifier.weights_fingerprint() != raw
    run.save_checkpoint(tmp_path / "interrupted.ckpt")
    loaded = ExpressionClassifier.load_from_checkpoint(tmp_path / "interrupted.ckpt", weights_only=True)
    assert loaded.weights_fingerprint() == raw
    trainer(tmp_path, max_steps=0, limit_val_batches=0).fit(classifier, datamodule=data)
    assert classifier.weights_fingerprint() == raw


def test_what_cannot_be_loaded_says_why(trained: tuple[ExpressionClassifier, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file at .*absent\.ckpt"):
        ExpressionClassifier.load_trained(tmp_path / "absent.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"nothing of the kind")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    for name, message in (("broken", "cannot be read"), ("foreign", "is no checkpoint of ExpressionClassifier")):
        with pytest.raises(ValueError, match=message) as caught:
            ExpressionClassifier.load_trained(tmp_path / f"{name}.ckpt")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"found the label space neutral, happy, sad, expected neutral, happy, sad, s"):
        ExpressionClassifier.load_trained(trained[1], label_space="basic7")
    with pytest.raises(ValueError, match="checkpoint with the label space"):
        trainer(tmp_path).validate(tiny(label_space="basic7"), ckpt_path=trained[1], dataloaders=[])


# ---------------------------------------------------------------- configs


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_builds_and_classifies(path: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert config["model"]["class_path"] == "lightning_modules.classifier.ExpressionClassifier"
    arguments = config["model"]["init_args"]
    assert not arguments.get("pretrained"), "an example must run without a network"
    assert config["data"]["image_size"] == "model"  # one size for both
    every = config["trainer"].get("check_val_every_n_epoch", 1)
    assert config["trainer"]["max_epochs"] % every == 0, "the last epoch must be evaluated"
    if "latents_of" in arguments:
        grey = {"patch": 4, "channels": 1}
        tiny_generator(image_size=arguments["image_size"], codec_config=grey).save_trained(tmp_path)
        arguments["latents_of"] = str(tmp_path)
    classifier = ExpressionClassifier(**arguments).eval()
    size = arguments["image_size"]
    assert classifier(torch.zeros(1, 3, size, size)).shape == (1, len(classifier.label_space))


def test_judge_and_guide_are_of_different_families() -> None:
    guide, judge = (
        ExpressionClassifier(**yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]["init_args"])
        for name in ("ferplus", "judge_ferplus")
    )
    assert guide.label_space == judge.label_space == EXPRESSIONS
    assert type(guide.backbone) is not type(judge.backbone)
    for classifier in (guide, judge):
        assert 1.5e6 < sum(p.numel() for p in classifier.parameters()) < 4e6


# ---------------------------------------------------------------- several ranks


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_report_what_one_rank_does(trained: tuple[ExpressionClassifier, Path], tmp_path: Path) -> None:
    data = TinyData(val=4)
    alone = trainer(tmp_path / "one")
    alone.test(tiny(), datamodule=data, ckpt_path=trained[1], verbose=False, weights_only=True)
    both = trainer(tmp_path / "two", devices=2, strategy="ddp_spawn")
    both.fit(tiny(), datamodule=data)
    assert math.isfinite(float(both.callback_metrics["val/loss"]))
    both = trainer(tmp_path / "two", devices=2, strategy="ddp_spawn")
    both.test(tiny(), datamodule=data, ckpt_path=trained[1], verbose=False, weights_only=True)
    assert set(both.callback_metrics) == set(alone.callback_metrics)
    for name, value in alone.callback_metrics.items():
        assert float(both.callback_metrics[name]) == pytest.approx(float(value), abs=1e-5), name
