"""The data module: what is read when, the exact mix in a real fit, resuming, and augmentation keyed by sample."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.loading.class_sampling import ClassSampling
from datamodules.readers.remapped import RemappedReader
from datamodules.rows.folds import hash_numbers
from datamodules.rows.sample_table import ArrayImages, SampleTable
from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.expressions import LABEL_SPACES
from synfer.synthesis.request import SynthesisRequest
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table

NO_AUGMENTATION = Augmentation(enabled=False)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leaves out Lightning's advice on workers and on logging, which a test of data does not need."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield


def _reader(train: int = 60, val: int = 14) -> TinyReader:
    return TinyReader(train=tiny_table(train), val=tiny_table(val, "val"), test=tiny_table(21, "test"))


def _with_hash(table: SampleTable, rows: list[int], source: SampleTable, source_rows: list[int]) -> SampleTable:
    content_hash = table.content_hash.copy()
    content_hash[rows] = source.content_hash[source_rows]
    return replace(table, content_hash=content_hash)


class _Recorder(LightningModule):
    """Keeps the ids and pictures it is given; a network of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[dict[str, Any]] = []
        self.seen: dict[str, list[Any]] = {"val": [], "test": [], "predict": []}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.batches.append(batch)
        return (self.weight * batch["image"].mean()).sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        assert batch["image"].dtype == torch.float32 and batch["image"].max() <= 1
        self.seen["val"] += batch["sample_id"]

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.seen["test"] += batch["sample_id"]

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["predict"] += batch.sample_ids if isinstance(batch, SynthesisRequest) else batch["sample_id"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.1)


class _FillPool(Callback):
    """Stands in for online synthesis: five samples when training starts, one more after every step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._add(trainer.datamodule.pool, 5)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._add(trainer.datamodule.pool, 1)

    def _add(self, pool: Any, n: int) -> None:
        images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8)
        label = torch.zeros(n, dtype=torch.int64)
        pool.append(images, label, torch.eye(7)[label], torch.zeros(n, 41), label, [""] * n)


def _trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    defaults = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **{**defaults, **quiet, **settings})


def _as_rank(datamodule: ExpressionDataModule, rank: int, ranks: int, epoch: int = 0, step: int = 0) -> None:
    """Lets the module believe it trains on this rank."""
    datamodule.trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=ranks,
        global_rank=rank,
        training=True,
        sanity_checking=False,
        current_epoch=epoch,
        global_step=step,
        state=SimpleNamespace(stage="train"),
        limit_train_batches=1.0,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"synthetic_ratio": 1.5}, r"data\.synthetic_ratio=1\.5: expected a number in \[0, 1\]"),
        ({"synthetic_ratio": float("nan")}, r"data\.synthetic_ratio=nan"),
        ({"training_fraction": 0.0}, r"data\.training_fraction=0\.0"),
        ({"synthetic_multiple": 0.0}, r"data\.synthetic_multiple=0\.0"),
        ({"batch_size": 0}, r"data\.batch_size=0: expected at least 1"),
        ({"num_workers": -1}, r"data\.num_workers=-1"),
    ],
)
def test_numbers_outside_their_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpressionDataModule(_reader(), **settings)


@pytest.mark.parametrize(
    ("stage", "reads"), [("fit", ["train", "val"]), ("validate", ["val"]), ("test", ["test"]), ("predict", [])]
)
def test_reads_only_what_the_stage_needs_and_once(stage: str, reads: list[str]) -> None:
    reader = _reader()
    datamodule = ExpressionDataModule(reader)
    assert datamodule.label_space == BASIC7 and reader.reads == []
    datamodule.setup(stage)
    datamodule.setup(stage)
    assert reader.reads == reads


def test_duplicates_are_reported_and_dropped() -> None:
    train, val, test = tiny_table(60), tiny_table(14, "val"), tiny_table(21, "test")
    val = _with_hash(val, [3, 4], train, [10, 11])
    test = _with_hash(test, [0], train, [50])
    reader = TinyReader(train=train, val=val, test=test)
    kept = ExpressionDataModule(reader)
    kept.setup("fit")
    assert kept.num_real_rows == 60 and kept.duplicate_report.evaluation_duplicates == {"val": 2}
    dropped = ExpressionDataModule(reader, drop_duplicates=True)
    dropped.setup("fit")
    assert set(train.sample_id) - set(dropped.train_table.sample_id) == {"train-10", "train-11", "train-50"}
    assert dropped.duplicate_report.evaluation_duplicates == {"val": 2, "test": 1}


def test_near_duplicates_are_dropped_too() -> None:
    train, val = tiny_table(60, side=16), tiny_table(14, "val", side=16)
    pixels = val.images.batch(np.arange(14))[:, 0].numpy().copy()
    pixels[5] = train.images.batch(np.array([20]))[0, 0] // 2 + 40  # other brightness and contrast
    val = replace(_with_hash(val, [3], train, [10]), images=ArrayImages(pixels))
    reader = TinyReader(train=train, val=val, test=tiny_table(7, "test", side=16))
    data = ExpressionDataModule(reader, drop_duplicates=True, near_duplicates=0.95)
    data.setup("fit")
    assert set(train.sample_id) - set(data.train_table.sample_id) == {"train-10", "train-20"}
    assert data.duplicate_report.near_duplicates == {"val": (1, 1), "test": (0, 0)}
    assert "1 more val rows have a near duplicate there (1 training rows)" in str(data.duplicate_report)


@pytest.mark.parametrize(("near", "drop", "said"), [(1.5, True, r"in \(0, 1\)"), (0.95, False, "drop_duplicates=true")])
def test_near_duplicates_out_of_place(near: float, drop: bool, said: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.near_duplicates.*{said}"):
        ExpressionDataModule(TinyReader(train=tiny_table(6)), drop_duplicates=drop, near_duplicates=near)


def test_a_test_split_that_is_not_there_is_said() -> None:
    reader = TinyReader(train=tiny_table(60), val=tiny_table(14, "val"))
    with pytest.warns(UserWarning, match="training was not compared with the test split"):
        ExpressionDataModule(reader, drop_duplicates=True).setup("fit")


def test_all_rows_are_duplicates() -> None:
    table = tiny_table(10)
    reader = TinyReader(train=table, val=replace(table, split="val"), test=tiny_table(3, "test"))
    with pytest.raises(ValueError, match="found duplicates of all 10 training rows"):
        ExpressionDataModule(reader, drop_duplicates=True).setup("fit")


def test_training_fraction_is_stratified_nested_and_seeded() -> None:
    tables = {}
    for fraction, seed in [(0.5, 1), (0.2, 1), (0.2, 2)]:
        datamodule = ExpressionDataModule(_reader(train=140), training_fraction=fraction, seed=seed)
        datamodule.setup("fit")
        tables[fraction, seed] = datamodule.train_table
    assert set(tables[0.5, 1].class_counts().values()) == {10} and set(tables[0.2, 1].class_counts().values()) == {4}
    ids = {key: set(table.sample_id) for key, table in tables.items()}
    assert ids[0.2, 1] < ids[0.5, 1] and ids[0.2, 1] != ids[0.2, 2]


def test_subset_seed_alone_chooses_the_rows() -> None:
    def rows(**seeds: int) -> list[str]:
        datamodule = ExpressionDataModule(_reader(train=140), training_fraction=0.2, **seeds)
        datamodule.setup("fit")
        assert datamodule.train_table is not None
        return list(datamodule.train_table.sample_id)

    assert rows(seed=1, subset_seed=7) == rows(seed=2, subset_seed=7) == rows(seed=7) != rows(seed=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_fit_from_the_pool_has_the_exact_ratio_in_every_batch(tmp_path: Path, workers: int) -> None:
    pool_dir = tmp_path / "pools"
    datamodule = ExpressionDataModule(
        _reader(), batch_size=8, synthetic_ratio=0.5, pool_size=16, seed=1, num_workers=workers, pool_dir=str(pool_dir)
    )
    model = _Recorder()
    _trainer(tmp_path, _FillPool(), max_epochs=2).fit(model, datamodule=datamodule)
    assert len(model.batches) == 30  # 60 real rows, 4 per step, two epochs
    assert all(int(batch["is_synthetic"].sum()) == 4 for batch in model.batches)
    real = [name for batch in model.batches[:15] for name in batch["sample_id"] if name.startswith("train")]
    assert sorted(real) == sorted(f"train-{i}" for i in range(60))
    assert datamodule.counts == {"real": 120, "synthetic": 120} and datamodule.effective_ratio == 0.5
    assert sorted(model.seen["val"][-14:]) == sorted(f"val-{i}" for i in range(14))
    newest = max(int(name.split("-")[2]) for batch in model.batches for name in batch["sample_id"] if "syn" in name)
    assert newest > 15  # what was made during training was drawn in training
    assert datamodule.pool is None and not list(pool_dir.iterdir())


def test_sanity_checks_and_validation_are_not_counted(tmp_path: Path) -> None:
    datamodule = ExpressionDataModule(_reader(), batch_size=10)
    _trainer(tmp_path, num_sanity_val_steps=-1).fit(_Recorder(), datamodule=datamodule)
    assert datamodule.counts == {"real": 60, "synthetic": 0}


def test_an_empty_pool_is_one_clear_error(tmp_path: Path) -> None:
    datamodule = ExpressionDataModule(_reader(), batch_size=8, synthetic_ratio=0.5, pool_dir=str(tmp_path))
    with pytest.raises(RuntimeError, match=r"enable --synthesis\.enabled"):
        _trainer(tmp_path).fit(_Recorder(), datamodule=datamodule)


@pytest.mark.parametrize("steps", [7, 10, 14])
def test_a_run_resumed_in_the_middle_of_an_epoch_goes_on_as_the_whole_one(tmp_path: Path, steps: int) -> None:
    def datamodule() -> ExpressionDataModule:
        return ExpressionDataModule(_reader(), batch_size=6, seed=5)

    whole, second = _Recorder(), _Recorder()
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=steps, save_top_k=-1)
    _trainer(tmp_path, saver, max_epochs=2, enable_checkpointing=True).fit(whole, datamodule=datamodule())
    resumed = datamodule()
    _trainer(tmp_path, max_epochs=2).fit(second, datamodule=resumed, ckpt_path=tmp_path / f"step={steps}.ckpt")
    assert (len(whole.batches), len(second.batches)) == (20, 20 - steps)
    for expected, found in zip(whole.batches[steps:], second.batches, strict=True):
        assert expected["sample_id"] == found["sample_id"]
        assert torch.equal(expected["image"], found["image"])
    assert resumed.counts == {"real": 120, "synthetic": 0}


def test_a_second_fit_in_one_process_begins_at_the_beginning(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=7, save_top_k=-1)
    datamodule, first, second = ExpressionDataModule(_reader(), batch_size=6, seed=5), _Recorder(), _Recorder()
    _trainer(tmp_path, saver, enable_checkpointing=True).fit(first, datamodule=datamodule)
    _trainer(tmp_path).fit(_Recorder(), datamodule=datamodule, ckpt_path=tmp_path / "step=7.ckpt")
    _trainer(tmp_path).fit(second, datamodule=datamodule)
    assert [batch["sample_id"] for batch in second.batches] == [batch["sample_id"] for batch in first.batches]


def _resume(tmp_path: Path, before: dict[str, Any], now: dict[str, Any]) -> ExpressionDataModule:
    """Trains one epoch with one set of rows and goes on for another with others."""
    saver = ModelCheckpoint(tmp_path, filename="saved")
    first = ExpressionDataModule(_reader(), batch_size=6, seed=5, **before)
    _trainer(tmp_path, saver, enable_checkpointing=True).fit(_Recorder(), datamodule=first)
    resumed = ExpressionDataModule(_reader(), batch_size=6, seed=5, **now)
    _trainer(tmp_path, max_epochs=2).fit(_Recorder(), datamodule=resumed, ckpt_path=tmp_path / "saved.ckpt")
    return resumed


def test_folds_beside_a_synthetic_set_are_refused() -> None:
    reader = _reader()
    settings: dict[str, Any] = {"folds": 3, "fold": 0, "synthetic_reader": reader}
    ExpressionDataModule(reader, **settings)  # not in use
    with pytest.raises(ValueError, match=r"data\.folds=3: found data\.synthetic_reader beside it"):
        ExpressionDataModule(reader, synthetic_ratio=0.5, **settings)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"folds": 3, "fold": 0}, {"folds": 3, "fold": 1}),
        ({}, {"folds": 3, "fold": 0}),
        ({"folds": 3, "fold": 0}, {"folds": 2, "fold": 0}),
    ],
)
def test_a_fit_does_not_go_on_with_other_folds(tmp_path: Path, before: Any, now: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.folds=.*: found a checkpoint trained with folds="):
        _resume(tmp_path, before, now)


def test_rows_of_earlier_attempts_stay_recorded(tmp_path: Path) -> None:
    resumed = _resume(tmp_path, {}, {"training_fraction": 0.5})
    assert resumed.num_real_rows < 60
    stored = resumed.state_dict()["trained_on"]
    assert set(stored.tolist()) == set(hash_numbers(_reader().tables["train"].content_hash).tolist())
    same = _resume(tmp_path / "folds", {"folds": 3, "fold": 1}, {"folds": 3, "fold": 1})
    assert len(same.state_dict()["trained_on"]) == same.num_real_rows < 60


def test_the_source_of_the_rows_is_recorded() -> None:
    reader = _reader()
    reader.labels = "majority"
    stored = ExpressionDataModule(RemappedReader(reader), batch_size=6).state_dict()
    assert stored["source"] == {"reader": "TinyReader", "labels": "majority"}


def test_one_rank_with_double_batch_gets_the_same_pictures_as_two_ranks() -> None:
    pictures = []
    for ranks, batch_size in [(1, 12), (2, 6)]:
        got: dict[str, torch.Tensor] = {}
        for rank in range(ranks):
            datamodule = ExpressionDataModule(_reader(), batch_size=batch_size, seed=2)
            datamodule.setup("fit")
            _as_rank(datamodule, rank, ranks, epoch=3, step=17)
            batch = next(iter(datamodule.train_dataloader()))
            batch = datamodule.on_after_batch_transfer(batch, 0)
            got |= dict(zip(batch["sample_id"], batch["image"], strict=True))
        pictures.append(got)
    assert set(pictures[0]) == set(pictures[1]) and len(pictures[0]) == 12
    for name, picture in pictures[0].items():
        torch.testing.assert_close(picture, pictures[1][name], atol=1e-6, rtol=0)


def test_augmentation_changes_with_the_step_and_only_in_training() -> None:
    datamodule = ExpressionDataModule(_reader(), seed=2)
    datamodule.setup("fit")
    loader = datamodule.val_dataloader()
    outcomes = []
    for step in (0, 1):
        _as_rank(datamodule, 0, 1, step=step)
        outcomes.append(datamodule.on_after_batch_transfer(next(iter(loader)), 0)["image"])
    datamodule.trainer.training = False
    plain = datamodule.on_after_batch_transfer(next(iter(loader)), 0)["image"]
    assert not torch.equal(*outcomes)
    assert torch.equal(plain, (next(iter(loader))["image"].float() / 255).expand_as(plain))


def test_views_of_a_face_are_as_many_as_said_and_the_same_in_every_run() -> None:
    seen: list[dict[str, set[bytes]]] = []
    for seed in (2, 3):
        datamodule = ExpressionDataModule(_reader(), seed=seed, augmentation=Augmentation(cached_views=3))
        datamodule.setup("fit")
        loader, found = datamodule.val_dataloader(), {}
        for step in range(30):
            _as_rank(datamodule, 0, 1, step=step)
            batch = datamodule.on_after_batch_transfer(next(iter(loader)), 0)
            for name, image in zip(batch["sample_id"], batch["image"], strict=True):
                found.setdefault(name, set()).add((image * 255).round().byte().numpy().tobytes())
        seen.append(found)
    assert seen[0] == seen[1]
    assert all(len(views) == 3 for views in seen[0].values())


def test_a_share_of_the_uses_draws_a_new_view_and_the_batch_says_which() -> None:
    outcomes = []
    for share in (0.0, 0.5):
        datamodule = ExpressionDataModule(
            _reader(), seed=2, augmentation=Augmentation(cached_views=2, uncached_fraction=share)
        )
        datamodule.setup("fit")
        loader, found = datamodule.val_dataloader(), []
        for step in range(30):
            _as_rank(datamodule, 0, 1, step=step)
            found.append(datamodule.on_after_batch_transfer(next(iter(loader)), 0))
        outcomes.append(found)
    stored, mixed = outcomes
    assert all("is_uncached" not in batch for batch in stored)
    is_uncached = torch.cat([batch["is_uncached"] for batch in mixed])
    images, known = (torch.cat([batch["image"] for batch in batches]) for batches in (mixed, stored))
    assert 0.3 < is_uncached.float().mean() < 0.7
    assert torch.equal(images[~is_uncached], known[~is_uncached])  # the same views, drawn in the same way
    assert len(images[is_uncached].unique(dim=0)) == int(is_uncached.sum())


def test_grey_batches_can_be_pinned() -> None:
    """Pinned memory refuses tensors whose elements share memory, such as three views of one channel."""
    datamodule = ExpressionDataModule(_reader())
    datamodule.setup("fit")
    _as_rank(datamodule, 0, 1)
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["image"].shape[1] == 1
    batch["image"].copy_(torch.zeros_like(batch["image"]))  # what pinning does, and what shared memory refuses
    assert datamodule.on_after_batch_transfer(batch, 0)["image"].shape[1] == 3


def test_a_broken_first_batch_is_named() -> None:
    datamodule = ExpressionDataModule(_reader())
    datamodule.setup("fit")
    _as_rank(datamodule, 0, 1)
    batch = next(iter(datamodule.train_dataloader()))
    batch["image"] = batch["image"].float() / 255
    batch["image"][2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=f"sample '{batch['sample_id'][2]}': image has NaN pixels"):
        datamodule.on_after_batch_transfer(batch, 0)


def test_synthetic_table_is_cut_to_the_multiple_and_relabelled() -> None:
    eight = LABEL_SPACES["ferplus8"]
    reader = TinyReader(
        train=tiny_table(40, label_space=eight), val=tiny_table(8, "val", label_space=eight), test=tiny_table(8, "test")
    )
    synthetic = TinyReader(train=tiny_table(50, label_space=("happy", "neutral", "anger"), seed=7))
    datamodule = ExpressionDataModule(
        reader,
        batch_size=8,
        synthetic_ratio=0.25,
        synthetic_multiple=0.3,
        synthetic_reader=synthetic,
        augmentation=NO_AUGMENTATION,
    )
    datamodule.setup("fit")
    table = datamodule.synthetic_table
    assert len(table) == datamodule.max_synthetic == 12 and table.is_synthetic and datamodule.pool is None
    counts = {name: count for name, count in table.class_counts().items() if count}
    assert counts == {"happy": 4, "neutral": 4, "anger": 4}
    assert np.array_equal(table.soft_label.argmax(1), table.label)
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["is_synthetic"].tolist() == [False] * 6 + [True] * 2


def test_a_multiple_of_a_sorted_set_has_all_classes_and_is_nested() -> None:
    whole = tiny_table(140, seed=7)
    whole = whole.select(np.concatenate([np.flatnonzero(whole.label == label)[: 20 - 2 * label] for label in range(7)]))
    backwards = whole.select(np.arange(len(whole))[::-1])

    def used(multiple: float, synthetic: SampleTable = whole, **seeds: int) -> SampleTable:
        datamodule = ExpressionDataModule(
            _reader(),
            synthetic_ratio=0.5,
            synthetic_multiple=multiple,
            synthetic_reader=TinyReader(train=synthetic),
            **seeds,
        )
        datamodule.setup("fit")
        assert datamodule.synthetic_table is not None
        return datamodule.synthetic_table

    assert list(whole.label[:14]) == [0] * 14  # what the first rows would have been
    half = used(49 / 60, seed=1)
    assert list(half.class_counts().values()) == [10, 9, 8, 7, 6, 5, 4]
    assert set(used(0.2, seed=1).sample_id) < set(half.sample_id)
    assert set(used(49 / 60, backwards, seed=1).sample_id) == set(half.sample_id)
    assert set(used(49 / 60, seed=2).sample_id) != set(half.sample_id)
    assert set(used(49 / 60, seed=2, subset_seed=1).sample_id) == set(half.sample_id)


def test_a_set_too_small_for_the_multiple_is_said() -> None:
    datamodule = ExpressionDataModule(
        _reader(), synthetic_ratio=1, synthetic_multiple=2, synthetic_reader=TinyReader(train=tiny_table(5))
    )
    with pytest.warns(UserWarning, match=r"synthetic_multiple=2: found a synthetic set of 5 faces, expected 120"):
        datamodule.setup("fit")


@pytest.mark.parametrize("has_reader", [True, False])
def test_a_multiple_that_allows_nothing(has_reader: bool) -> None:
    synthetic = TinyReader(train=tiny_table(5)) if has_reader else None
    datamodule = ExpressionDataModule(
        _reader(), synthetic_ratio=0.5, synthetic_multiple=0.01, synthetic_reader=synthetic
    )
    with pytest.raises(ValueError, match=r"data\.synthetic_multiple=0\.01: found 0 synthetic samples allowed"):
        datamodule.setup("fit")


def test_the_pool_is_bounded_by_the_multiple(tmp_path: Path) -> None:
    datamodule = ExpressionDataModule(
        _reader(), synthetic_ratio=0.5, synthetic_multiple=2, pool_size=8, pool_dir=str(tmp_path)
    )
    datamodule.setup("fit")
    assert datamodule.max_synthetic == 120 and datamodule.pool.slots == 8 and datamodule.pool.image_size == 8
    datamodule.teardown("fit")
    assert not list(tmp_path.iterdir())


def test_a_synthetic_set_of_another_label_space() -> None:
    synthetic = TinyReader(train=tiny_table(5, label_space=("happy", "contempt")))
    datamodule = ExpressionDataModule(_reader(), synthetic_ratio=0.5, synthetic_reader=synthetic)
    with pytest.raises(ValueError, match=r"data\.synthetic_reader: found expression 'contempt', expected one of"):
        datamodule.setup("fit")


def test_class_balance() -> None:
    train = tiny_table(70)
    train = train.select(np.flatnonzero((train.label == 0) | (np.arange(70) < 7)))  # ten of class 0, one of the others
    datamodule = ExpressionDataModule(
        TinyReader(train=train, val=tiny_table(7, "val")), batch_size=14, class_balance=1.0
    )
    datamodule.setup("fit")
    for batch in datamodule.train_dataloader():
        assert batch["label"].bincount().tolist() == [2] * 7


def test_samplers_of_the_classes() -> None:
    train = tiny_table(70)
    train = train.select(np.flatnonzero((train.label == 0) | (np.arange(70) < 7)))  # ten of class 0, one of the others
    reader = TinyReader(train=train, val=tiny_table(7, "val"))
    for kind, expected in (("balanced", [1 / 7] * 7), ("square_root", np.array([10**0.5, *[1] * 6]) / (10**0.5 + 6))):
        sampling = ClassSampling(kind)  # type: ignore[arg-type]
        datamodule = ExpressionDataModule(reader, batch_size=14, class_sampling=sampling, steps_per_epoch=20)
        datamodule.setup("fit")
        np.testing.assert_allclose(datamodule.drawn_label_shares(), expected)
        drawn = torch.cat([batch["label"] for batch in datamodule.train_dataloader()]).bincount(minlength=7)
        assert (abs(drawn.numpy() - 280 * np.asarray(expected)) < 1).all()


def test_two_samplers_of_the_classes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^data\.class_sampling\.kind=balanced: expected data\.class_balance=0 beside it"
    ):
        ExpressionDataModule(_reader(), class_balance=0.5, class_sampling=ClassSampling("balanced"))


def test_a_long_tail_is_made_of_the_rows_that_are_left() -> None:
    reader = _reader(train=140)
    ids = {}
    for seed in (1, 2):
        settings: dict[str, Any] = {"imbalance": 4.0, "imbalance_largest": 16, "seed": seed}
        datamodule = ExpressionDataModule(reader, folds=2, fold=0, **settings, subset_seed=7)
        datamodule.setup("fit")
        table = datamodule.train_table
        assert table is not None and set(table.class_counts().values()) <= set(range(2, 17))
        counts = sorted(table.class_counts().values(), reverse=True)
        assert abs(counts[0] - 4 * counts[-1]) <= 2
        held_out = datamodule._training_rows.inside_fold(reader.tables["train"])
        assert not set(table.sample_id) & set(held_out.sample_id)
        ids[seed] = table.sample_id.tolist()
    assert ids[1] == ids[2]  # by data.subset_seed alone


def test_faces_of_another_size_are_resized() -> None:
    datamodule = ExpressionDataModule(_reader(), image_size=12)
    datamodule.setup("fit")
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader()):
        assert next(iter(loader))["image"].shape[1:] == (1, 12, 12)  # grey, spread over RGB on the device


@pytest.mark.parametrize(("split", "count"), [("synthesis", 10), ("test", 21)])
def test_predict_and_test_see_every_sample_once(tmp_path: Path, split: str, count: int) -> None:
    datamodule = ExpressionDataModule(_reader(), eval_batch_size=4, predict_split=split, synthesis_count=10)
    model, trainer = _Recorder(), _trainer(tmp_path)
    trainer.predict(model, datamodule=datamodule, return_predictions=False)
    assert len(set(model.seen["predict"])) == len(model.seen["predict"]) == count
    trainer.test(model, datamodule=datamodule, verbose=False)
    assert sorted(model.seen["test"]) == sorted(f"test-{i}" for i in range(21))


def test_an_expression_that_the_data_does_not_know_is_not_made() -> None:
    with pytest.raises(ValueError, match=r"data\.synthesis_expressions: found 'contempt'"):
        ExpressionDataModule(_reader(), synthesis_expressions=["contempt"])


def test_loaders_before_setup() -> None:
    with pytest.raises(RuntimeError, match="the train split has not been read"):
        ExpressionDataModule(_reader()).train_dataloader()


def test_a_flipped_face_has_its_one_sided_action_units_on_the_other_side(tmp_path: Path) -> None:
    table = tiny_table(16, "train")
    au = np.zeros((16, len(ACTION_UNITS)), dtype=np.float32)
    au[:, ACTION_UNITS.index("AUR12")] = 1
    augmentation = Augmentation(flip=0.5, rotation=0, translate=0, scale=0, contrast=0, brightness=0, erasing=0)
    reader = TinyReader(train=replace(table, au=au), val=tiny_table(4, "val"))
    module = ExpressionDataModule(reader, batch_size=16, augmentation=augmentation)
    batches: list[dict] = []

    class Keep(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            batches.append(batch)
            return self.layer.weight.sum()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            return None

    trainer = Trainer(
        default_root_dir=tmp_path, fast_dev_run=1, logger=False, accelerator="cpu", enable_progress_bar=False
    )
    trainer.fit(Keep(), module)
    (batch,) = batches
    rows = [table.sample_id.tolist().index(name) for name in batch["sample_id"]]
    straight = table.images.batch(np.array(rows)).float() / 255
    flipped = (batch["image"] - straight).abs().amax((1, 2, 3)) > 1e-3
    assert 0 < flipped.sum() < 16
    left, right = (batch["au"][:, ACTION_UNITS.index(name)] for name in ("AUL12", "AUR12"))
    assert torch.equal(left, flipped.float()) and torch.equal(right, (~flipped).float())


class _NoValidation(TinyReader):
    def has_split(self, split: str) -> bool:  # type: ignore[override]
        return split in self.tables


def _data_without_validation(count: int = 70, **settings: Any) -> ExpressionDataModule:
    return ExpressionDataModule(_NoValidation(train=tiny_table(count)), **{"val_fraction": 0.2, **settings})


def test_validation_rows_are_held_out_of_everything() -> None:
    data = _data_without_validation(folds=3, fold=0)
    data.setup("fit")
    held_out = set(data.val_table.content_hash)  # type: ignore[union-attr]
    assert len(held_out) == 14 and not held_out & set(data.train_table.content_hash)  # type: ignore[union-attr]
    assert len(data.near_copies().rows) == 56  # a validation face is no copy of itself
    other = _data_without_validation(folds=3, fold=0, predict_split="train", seed=7)
    other.setup("predict")
    together = {*data.train_table.content_hash, *other.train_table.content_hash}  # type: ignore[union-attr]
    assert len(together) == 56 and not held_out & together
    validated = _data_without_validation(seed=8)
    validated.setup("validate")
    assert set(validated.val_table.content_hash) == held_out  # type: ignore[union-attr]


def _state_after_fit(**settings: Any) -> dict[str, Any]:
    data = _data_without_validation(**settings)
    data.setup("fit")
    return data.state_dict()


def test_a_checkpoint_knows_which_rows_were_held_out() -> None:
    state = _state_after_fit()
    assert state["held_out"] == {"fraction": 0.2, "seed": 0, "groups": None}
    data = _data_without_validation(val_fraction=0.3)
    data.setup("fit")
    data.trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"))  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"data\.val_fraction=0\.3, .*trained with data\.val_fraction=0\.2,"):
        data.load_state_dict(state)


def test_a_model_is_not_scored_on_rows_that_it_has_learned_from() -> None:
    state = _state_after_fit()
    same, other = _data_without_validation(), _data_without_validation(val_seed=1)
    for data in (same, other):
        data.setup("validate")
    same.load_state_dict(state)
    with pytest.raises(ValueError, match=r"learned from \d+ of the 14 rows held out.*0\.2, data\.val_seed=1"):
        other.load_state_dict(state)


def test_the_model_s_size() -> None:
    data = ExpressionDataModule(_reader(), image_size="model")
    data.trainer = SimpleNamespace(lightning_module=BoringModel())  # type: ignore[assignment]
    data.setup("test")
    assert data.image_size is None and data.reader.wanted_size is None  # it takes any
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(image_size=12))  # type: ignore[assignment]
    data.setup("fit")
    assert data.image_size == 12 and data.reader.wanted_size == 12


def test_a_class_without_a_training_face_is_named() -> None:
    rows = tiny_table(70)
    data = ExpressionDataModule(TinyReader(train=rows.select(rows.label != 2), val=tiny_table(14, "val")))
    with pytest.warns(UserWarning, match="found no training face of sad, .*neutral,happy,surprise"):
        data.setup("fit")
