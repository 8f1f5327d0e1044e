"""A set that is read while a run trains: rows as of the same set in memory, nothing stored, nothing lost."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from datamodules.captions.row_groups import RowGroups
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers import ImageCaptionsReader
from tests.fixtures.caption_sets import drawn_pairs, tar_members, write_parquet, write_tar

PAIRS = drawn_pairs(60)


class Recorder(LightningModule):
    """Notes what it is shown."""

    uses_unlabelled_rows = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[str]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Notes the sample ids."""
        self.seen.append(batch["sample_id"])
        return self.weight * batch["image"].mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Looks at nothing."""

    def configure_optimizers(self) -> Any:
        """Returns any optimiser."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    return Trainer(default_root_dir=folder, **{**quiet, **settings})


@pytest.fixture(params=["parquet", "webdataset"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for number in range(3):
        some = PAIRS[20 * number : 20 * number + 20]
        if request.param == "parquet":
            write_parquet(tmp_path / "set" / f"{number}.parquet", some)
        else:
            write_tar(tmp_path / "set" / f"{number}.tar", tar_members(some))
    return tmp_path / "set"


def streamed(folder: Path | str, **settings: Any) -> ImageCaptionsReader:
    given = {"streaming": True, "image_size": 16, "shuffle_buffer": 6, "held_out": {"val": 0.1}, **settings}
    return ImageCaptionsReader(str(folder), **given)


def test_rows_are_those_of_the_set_in_memory(folder: Path) -> None:
    reader = streamed(folder)
    train, val = reader.read("train"), reader.read("val")
    everything = ImageCaptionsReader(str(folder), image_size=16).read("train")
    assert len(train) + len(val) == 60 and 1 <= len(val) <= 20
    assert not set(train.sample_id) & set(val.sample_id) and len(set(train.content_hash)) == len(train)
    place = {name: row for row, name in enumerate(everything.sample_id)}
    for table in (train, val):
        rows = np.array([place[name] for name in table.sample_id])
        assert table.caption is not None and everything.caption is not None
        assert table.caption.tolist() == everything.caption[rows].tolist()
        assert (table.images.batch(np.arange(len(table))) == everything.images.batch(rows)).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fit_sees_every_row_once_and_goes_on_where_it_stopped(folder: Path, workers: int, tmp_path: Path) -> None:
    def data() -> ExpressionDataModule:
        reader = streamed(folder, lanes=2)
        return ExpressionDataModule(reader, batch_size=4, seed=3, num_workers=workers)

    whole, second = Recorder(), Recorder()
    stop = 3 if workers else 13
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=stop, save_top_k=-1)
    trainer(tmp_path, max_epochs=2, callbacks=[saver], enable_checkpointing=True).fit(whole, datamodule=data())
    train = streamed(folder).read("train").sample_id.tolist()
    steps = -(-len(train) // 4)
    names = [name for batch in whole.seen[:steps] for name in batch]
    assert sorted(names[: len(train)]) == sorted(train) and len(whole.seen) == 2 * steps
    assert names != [name for batch in whole.seen[steps:] for name in batch]

    saved = tmp_path / f"step={stop}.ckpt"
    trainer(tmp_path, max_epochs=2).fit(second, datamodule=data(), ckpt_path=saved)
    assert second.seen == whole.seen[stop:]
    with pytest.raises(ValueError, match=r"a checkpoint of a stream with lanes=2, expected 1"):
        one = ExpressionDataModule(streamed(folder), batch_size=4, seed=3)
        trainer(tmp_path, max_epochs=2).fit(Recorder(), datamodule=one, ckpt_path=saved)


def test_two_ranks_share_no_row(folder: Path) -> None:
    rows = []
    for rank in range(2):
        data = ExpressionDataModule(streamed(folder, lanes=2), batch_size=4, seed=0)
        data._ranks = lambda rank=rank: (2, rank)  # type: ignore[method-assign]
        data.setup("fit")
        loader = data.make_training_loader(data.training_sampler())
        rows.append([name for batch in loader for name in batch["sample_id"]])
        total = data.num_real_rows
    whole = total // 8 * 4
    assert not set(rows[0][:whole]) & set(rows[1][:whole])
    assert set(rows[0]) | set(rows[1]) == set(streamed(folder).read("train").sample_id)


def test_parquet_is_read_a_row_group_at_a_time_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "x.parquet", PAIRS)  # 15 groups of four
    loads: list[tuple[int, int]] = []
    load = RowGroups._load

    def counted(self: RowGroups, file: int, group: int) -> list[bytes | None]:
        loads.append((file, group))
        return load(self, file, group)

    monkeypatch.setattr(RowGroups, "_load", counted)
    data = ExpressionDataModule(streamed(tmp_path, held_out={"val": 0.05}), batch_size=4, seed=0)
    data.setup("fit")
    assert not loads
    loader = data.make_training_loader(data.training_sampler())
    assert len(list(loader)) == 14
    images: Any = data.train_table.images if data.train_table is not None else None
    groups = images.images[0].groups
    assert len(loads) - len(set(loads)) <= 2  # each group once, but for what filled up the last batch
    assert sum(map(len, groups._kept.values())) <= 2 * 6 + 2 * 4
    assert not pickle.loads(pickle.dumps(groups))._kept and groups._kept


def test_a_url_is_read_without_a_file_here(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    write_parquet(tmp_path / "x.parquet", PAIRS[:12])
    with memory.open("/faces/data/train-0.parquet", "wb") as file:
        file.write((tmp_path / "x.parquet").read_bytes())
    table = streamed("memory://faces", held_out=None).read("train")
    assert len(table) == 12 and table.images.batch(np.arange(12)).shape == (12, 3, 16, 16)
    assert table.sample_id[0] == "0000.png"


def test_bad_pictures_of_a_stream(tmp_path: Path) -> None:
    pairs = [{**pair, "image": b"nothing"} if number in (1, 2) else pair for number, pair in enumerate(PAIRS[:8])]
    write_parquet(tmp_path / "x.parquet", pairs)
    table = streamed(tmp_path, held_out=None).read("train")
    with pytest.raises(ValueError, match=r"x\.parquet#1: found 7 bytes that cannot be decoded"):
        table.images.batch(np.arange(4))
    skipping = streamed(tmp_path, held_out=None, on_bad_sample="skip").read("train")
    with pytest.warns(UserWarning, match=r"x\.parquet#[12]: .*another picture of the batch stands in for it"):
        images = skipping.images.batch(np.arange(4))
    assert images.shape[0] == 4 and (images[1] == images[3]).all()  # the second of two good ones
    with (
        pytest.warns(UserWarning, match="another picture"),
        pytest.raises(ValueError, match=r"\(and 1 more: no picture of the batch is good\)"),
    ):
        skipping.images.batch(np.array([1, 2]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop_duplicates": True}, r"data\.drop_duplicates=True: expected false with a stream"),
        ({"folds": 2, "fold": 0}, r"data\.folds=2: expected null with a stream"),
        ({"class_balance": 1.0}, r"data\.class_balance: found training rows without an expression"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", PAIRS)
    data = ExpressionDataModule(streamed(tmp_path), batch_size=4, seed=0, **settings)
    with pytest.raises(ValueError, match=message):
        data.setup("fit")
        data.training_sampler()
    labelled = ExpressionDataModule(streamed(tmp_path, label_column="label"), batch_size=4, seed=0, class_balance=1.0)
    labelled.setup("fit")
    with pytest.raises(ValueError, match=r"data\.class_balance: found a stream"):
        labelled.training_sampler()
    with pytest.raises(ValueError, match=r"image_size=None: expected a side in pixels with streaming"):
        streamed(tmp_path, image_size=None)
    with pytest.raises(ValueError, match=r"streaming=true: found the format 'folder', expected parquet or webdataset"):
        streamed(tmp_path, format="folder")
