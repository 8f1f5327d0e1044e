"""Training on latents and text tokens from disk is training on those that are computed at each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.loading.augmentation import Augmentation
from lightning_modules.generator import ExpressionGenerator
from synfer.networks import tensor_cache
from synfer.networks.tensor_cache import TensorCache
from tests.fixtures.tiny_generator import request_for, save_base, tiny_generator
from tests.lightning_modules.test_generator import make_trainer, tiny_data, weights

FLIP = {"rotation": 0, "translate": 0, "scale": 0, "contrast": 0, "brightness": 0, "erasing": 0}
VIEWS = {
    "as they are": Augmentation(enabled=False),
    "flip": Augmentation(**FLIP),
    "views": Augmentation(cached_views=3),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_base(tmp_path_factory.mktemp("base")))


class Losses(Callback):
    """Notes the losses, and what is in memory while training."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.frozen_numbers: set[int] = set()
        self.pixels: set[int] = set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *rest: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        frozen = (pl_module.model.codec, pl_module.model.text_encoder)
        self.frozen_numbers.add(sum(p.numel() for module in frozen for p in module.parameters()))
        self.pixels.add(batch["image"].numel())


class Runs:
    """Counts images and captions that go through the frozen networks."""

    def __init__(self, generator: ExpressionGenerator) -> None:
        self.images = self.captions = 0
        generator.model.codec.autoencoder.encoder.register_forward_pre_hook(self._image)
        generator.model.text_encoder.register_forward_pre_hook(self._caption, with_kwargs=True)

    def _image(self, module: Any, inputs: Any) -> None:
        self.images += len(inputs[0])

    def _caption(self, module: Any, inputs: Any, named: Any) -> None:
        self.captions += len(inputs[0])


def run(
    base: str, folder: Path, cache: dict[str, Any], augmentation: Augmentation = VIEWS["as they are"], **changes: Any
) -> tuple[ExpressionGenerator, Losses, Runs]:
    generator = tiny_generator(base=base, trained="lora", cache=cache, drop_text=0.3, ema_decay=0.9)
    noted, runs = Losses(), Runs(generator)
    trainer = make_trainer(folder, max_epochs=2, callbacks=[noted], **changes)
    trainer.fit(generator, datamodule=tiny_data(augmentation=augmentation))
    return generator, noted, runs


def same(a: ExpressionGenerator, b: ExpressionGenerator) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[name]) for name, t in ours.items())


@pytest.mark.parametrize("views", list(VIEWS))
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_losses_and_weights_are_the_same_bit_for_bit(views: str, precision: Any, base: str, tmp_path: Path) -> None:
    plain, expected, _ = run(base, tmp_path, {}, VIEWS[views], precision=precision)
    for _ in range(2):  # filled by this run, and found there
        cached, found, _ = run(base, tmp_path, {"path": str(tmp_path / "cache")}, VIEWS[views], precision=precision)
        assert found.losses == expected.losses and len(set(found.losses)) == 6
        assert same(plain, cached)
    assert found.pixels == {0} and 0 not in expected.pixels
    assert found.frozen_numbers == {0} and 0 not in expected.frozen_numbers


def test_frozen_networks_run_once_for_all_runs(base: str, tmp_path: Path) -> None:
    cache = {"path": str(tmp_path / "cache")}
    _, _, first = run(base, tmp_path, cache, VIEWS["flip"])
    assert 24 * 2 <= first.images <= 24 * 2 + 1  # and one to learn the shape
    _, _, second = run(base, tmp_path, cache, VIEWS["flip"])
    assert second.images == second.captions == 1


def test_text_may_stay_in_the_loop(base: str, tmp_path: Path) -> None:
    plain, expected, _ = run(base, tmp_path, {})
    cached, found, runs = run(base, tmp_path, {"path": str(tmp_path / "cache"), "text": False})
    assert same(plain, cached) and found.losses == expected.losses
    assert runs.captions > 6 and found.frozen_numbers != {0}


def test_a_validation_has_its_networks_and_the_same_loss(base: str, tmp_path: Path) -> None:
    trainers = []
    for cache in ({}, {"path": str(tmp_path / "cache")}):
        generator = tiny_generator(base=base, trained="lora", cache=cache, grid_samples=1)
        trainer = make_trainer(tmp_path, max_epochs=2, limit_val_batches=1.0)
        trainer.fit(generator, datamodule=tiny_data())
        trainers.append(trainer)
    losses = [trainer.callback_metrics["val/loss"] for trainer in trainers]
    assert torch.equal(*losses)
    faces = [trainer.lightning_module.synthesise(request_for()).images for trainer in trainers]
    assert torch.equal(*faces)  # after the fit all is in memory again
    assert not [p for p in trainers[1].lightning_module.parameters() if not p.numel()]


def test_what_was_interrupted_goes_on_where_it_stopped(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was written is lost, and nothing is computed twice."""
    monkeypatch.setattr(tensor_cache, "_SHARD_BYTES", 1)  # every batch is written at once
    cache = {"path": str(tmp_path / "cache")}
    added: list[bytes] = []
    add = TensorCache.add

    def adding(self: TensorCache, keys: list[bytes], tensors: torch.Tensor) -> None:
        if stop_after is not None and len(added) >= stop_after:
            raise KeyboardInterrupt
        add(self, keys, tensors)
        added.extend(keys)

    monkeypatch.setattr(TensorCache, "add", adding)
    for stop_after in (8, 32, None):
        if stop_after is None:
            cached, found, _ = run(base, tmp_path, cache, VIEWS["flip"])
        else:
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                run(base, tmp_path, cache, VIEWS["flip"])
    monkeypatch.undo()
    assert len(added) == len(set(added)) and len(added) > 48
    plain, expected, _ = run(base, tmp_path, {}, VIEWS["flip"])
    assert same(plain, cached) and found.losses == expected.losses


def test_other_weights_or_precision_look_elsewhere(base: str, tmp_path: Path) -> None:
    cache = {"path": str(tmp_path / "cache")}
    run(base, tmp_path, cache)
    folders = set((tmp_path / "cache").iterdir())
    run(base, tmp_path, cache, precision="bf16-mixed")
    assert len(set((tmp_path / "cache").iterdir()) - folders) == 2  # latents and text; the networks' file is the same
    other = save_base(tmp_path / "other", seed=5)
    _, _, runs = run(str(other), tmp_path, cache)
    assert runs.images > 24


def test_nothing_of_the_cache_enters_a_checkpoint(base: str, tmp_path: Path) -> None:
    generator = tiny_generator(base=base, trained="lora", cache={"path": str(tmp_path / "cache")})
    assert "cache" not in generator.hparams


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"augmentation": Augmentation()}, r"data.augmentation.cached_views: found null with model.cache.path"),
        ({"image_size": 24}, r"model.image_size is 16, but the data has images of 24x24"),
        ({"synthetic_ratio": 0.5}, r"data.synthetic_ratio: found 0.5 with model.cache.path, expected 0"),
    ],
)
def test_what_does_not_go_with_it(data: dict[str, Any], message: str, base: str, tmp_path: Path) -> None:
    generator: LightningModule = tiny_generator(base=base, trained="lora", cache={"path": str(tmp_path / "cache")})
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path).fit(generator, datamodule=tiny_data(**data))


def test_a_small_model_has_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.cache.path: found .*, expected null without model.base"):
        tiny_generator(cache={"path": str(tmp_path)})
