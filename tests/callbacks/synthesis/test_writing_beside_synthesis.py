"""Faces are written while the next ones are made: in order, all of them before a stop, and an error ends the run."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.agreed_stop import AgreedStop
from callbacks.synthesis.synthetic_set_writer import SyntheticSetWriter
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.mixture_sampler import MixtureSampler
from datamodules.readers.synthetic_set import SyntheticSetReader
from datamodules.synthetic.synthetic_shards import finished_indices, read_record
from experiments.command_line.errors import explain
from tests.fixtures.drawn_synthesiser import DrawnModule
from tests.fixtures.refusing_disk import refusing_disk
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table

SIDE, COUNT, BATCH = 32, 20, 4


class AtBatch(Callback):
    """Does something before a batch is made."""

    def __init__(self, number: int, work: Any) -> None:
        self.number, self.work = number, work

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == self.number:
            self.work()


def predict(folder: Path, *callbacks: Callback, count: int = COUNT, **settings: Any) -> SyntheticSetWriter:
    tables = {split: tiny_table(28, split, SIDE) for split in ("train", "val", "test")}
    data = ExpressionDataModule(TinyReader(**tables), eval_batch_size=BATCH, synthesis_count=count, seed=5)
    writer = SyntheticSetWriter(str(folder), **settings)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder.parent / "run",
        callbacks=[AgreedStop(), writer, *callbacks],
    )
    trainer.predict(DrawnModule(BASIC7, SIDE), data, return_predictions=False)
    return writer


def faces(folder: Path) -> dict[str, str]:
    table = SyntheticSetReader(str(folder)).read("train")
    return dict(zip(table.sample_id.tolist(), table.content_hash.tolist(), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole") / "set"
    writer = predict(folder)
    assert writer.counts["generated"] == COUNT and writer.counts["discarded"] == 0
    # The first batch at once; the others, which are quick, share a shard.
    assert sorted(path.name for path in folder.glob("data/*")) == ["00000000-4.parquet", "00000004-16.parquet"]
    return faces(folder)


def test_a_shard_holds_what_was_asked(whole: dict[str, str], tmp_path: Path) -> None:
    predict(tmp_path / "set", shard_faces=6)
    names = sorted(path.name for path in (tmp_path / "set").glob("data/*"))
    assert names == ["00000000-4.parquet", "00000004-6.parquet", "00000010-6.parquet", "00000016-4.parquet"]
    assert faces(tmp_path / "set") == whole
    predict(tmp_path / "each", shard_seconds=0)
    assert len(list((tmp_path / "each").glob("data/*"))) == COUNT // BATCH and faces(tmp_path / "each") == whole
    for wrong, said in (({"shard_faces": 0}, "found 0, expected at least 1"), ({"shard_seconds": -1.0}, "found -1.0")):
        with pytest.raises(ValueError, match=said):
            SyntheticSetWriter(**wrong)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(("work", "ends"), [(interrupt, SystemExit), (fail, ZeroDivisionError)])
def test_what_is_finished_is_written_before_a_run_ends(
    work: Any, ends: type[BaseException], whole: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ends):
        predict(tmp_path / "set", AtBatch(3, work))
    assert finished_indices(tmp_path / "set").tolist() == list(range(3 * BATCH))
    assert "background work" not in {thread.name for thread in threading.enumerate()}
    assert predict(tmp_path / "set").counts["generated"] == COUNT - 3 * BATCH
    assert faces(tmp_path / "set") == whole


@pytest.mark.parametrize(("reason", "said"), [(errno.ENOSPC, "no space left"), (errno.EDQUOT, "quota used up")])
def test_a_full_disk_ends_the_run_and_nothing_is_lost(
    reason: int, said: str, whole: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    with refusing_disk(folder, reason, name="00000008") as refused, pytest.raises(OSError, match=r"00000008") as caught:
        predict(folder, shard_seconds=0)
    assert len(refused) == 1 and "background work" not in {thread.name for thread in threading.enumerate()}
    line = explain(caught.value)
    assert line is not None and f"00000008-4.parquet.partial': found {'the disk ' * ('quota' in said)}{said}" in line
    assert finished_indices(folder).tolist() == list(range(2 * BATCH)) and not list(folder.glob("data/.*"))
    predict(folder)
    assert faces(folder) == whole


def test_a_folder_that_is_read_only_is_one_line(tmp_path: Path) -> None:
    with refusing_disk(tmp_path / "disk"), pytest.raises(OSError) as caught:
        predict(tmp_path / "disk" / "set")
    line = explain(caught.value)
    assert line is not None and "found a file system that is read-only, expected one that can be written to" in line
    assert not (tmp_path / "disk").exists()


def test_a_set_on_a_read_only_disk_is_read(whole: dict[str, str], tmp_path: Path) -> None:
    predict(tmp_path / "set")
    with refusing_disk(tmp_path / "set") as refused:
        assert faces(tmp_path / "set") == whole and read_record(tmp_path / "set")["seed"] == 5
    assert not refused


@pytest.mark.parametrize("real", [1, 3])
def test_no_rank_starves_where_rows_are_fewer_than_ranks(real: int) -> None:
    """A rank without a batch would leave the loop, and the others would wait for its gradients."""
    samplers = [MixtureSampler(real, 16, batch_size=4, ratio=0.5, seed=1, num_replicas=8, rank=r) for r in range(8)]
    drawn = [list(sampler) for sampler in samplers]
    assert len({len(rows) for rows in drawn}) == 1 and len(drawn[0]) == samplers[0].steps * 4 > 0
    assert {row for rows in drawn for row in rows if row < real} == set(range(real))
    assert all(sum(row < real for row in rows) == 2 * samplers[0].steps for rows in drawn)
