"""summary.json says what the run was and how it ended, however it ended."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from callbacks.recording import process_facts, run_record
from callbacks.recording.process_facts import cpu_seconds, git_state, versions
from callbacks.recording.run_record import RunRecord
from callbacks.recording.wandb_run import WandbRun
from datamodules.rows.provenance import split_manifest
from synfer.runs.row_file import read_rows, row_file
from tests.fixtures.tiny_data import tiny_table


class Line(LightningModule):
    """One weight; its loss has a finite and a NaN metric beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch[0]).square().mean()
        self.log_dict({"train/loss": loss, "train/nothing": float("nan")})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Counting(Callback):
    """Stands in for the vote: counts what it threw away."""

    counts = {"discarded": 3, "generated": 5}


class Raising(Callback):
    """Raises at the second step."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 2:
            raise self.error


def fit(folder: Path, *callbacks: Callback) -> RunRecord:
    record = RunRecord(folder, "fit", {"seed_everything": 7}, "seed_everything: 7\n")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[record, *callbacks],
    )
    trainer.fit(Line(), DataLoader(TensorDataset(torch.ones(4, 1))))
    return record


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_finished(tmp_path: Path) -> None:
    fit(tmp_path, Counting())
    summary = summary_of(tmp_path)
    assert summary["status"] == "finished" and "error" not in summary
    assert summary["config"] == {"seed_everything": 7} and summary["seed"] == 7
    assert summary["counts"] == {"real": 0, "synthetic": 0, "discarded": 3, "generated": 5}
    assert summary["counts_of"] == "all ranks"
    assert summary["steps"] == 4
    assert summary["metrics"]["train/loss"] >= 0
    assert summary["metrics"]["train/nothing"] is None
    assert (tmp_path / "config.yaml").read_text() == "seed_everything: 7\n"


def test_a_fit_without_a_step_left_counts_all_ranks(tmp_path: Path) -> None:
    """It was killed after its last checkpoint and before its record: no training begins or ends once more."""
    record = RunRecord(tmp_path, "fit", {}, "")
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda values, reduce_op: 2 * values)
    trainer: Any = SimpleNamespace(strategy=strategy, callbacks=[Counting()], datamodule=None, world_size=2)
    record.on_fit_end(trainer, Line())
    assert record._totals is not None and record._totals["counts/generated"] == 2 * 5
    before = record._totals
    record.on_fit_end(trainer, Line())
    assert record._totals is before  # summed when the training ended


@pytest.mark.parametrize("asked", [True, False])
def test_wandb_gets_the_trained_parts_where_asked(asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, list[Path]] = {}

    def keep(self: WandbRun, name: str, kind: str, files: Iterable[Path] = (), contents: Any = None) -> None:
        given[kind] = list(files)

    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(WandbRun, "log_artifact", keep)
    record = RunRecord(tmp_path, "fit", {}, "{}\n", log_checkpoints=asked)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=WandbRun(tmp_path),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[record, ModelCheckpoint(tmp_path / "checkpoints", save_last=True)],
    )
    trainer.fit(Line(), DataLoader(TensorDataset(torch.ones(4, 1))))
    wandb.finish()
    assert [path.name for path in given["config"]] == ["config.yaml"]
    assert [path.name for path in given.get("model", [])] == (["epoch=0-step=4.ckpt", "last.ckpt"] if asked else [])


def test_failed(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        fit(tmp_path, Raising(ValueError("face 3\nis black")), Counting())
    summary = summary_of(tmp_path)
    assert summary["status"] == "failed" and summary["error"] == "ValueError: face 3 is black"
    assert summary["steps"] == 2 and summary["counts"]["discarded"] == 3


def test_interrupted(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path, Raising(KeyboardInterrupt()))
    assert summary_of(tmp_path)["status"] == "interrupted"


def test_killed_run_is_seen_as_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunRecord, "teardown", Callback.teardown)  # what a kill leaves undone
    fit(tmp_path)
    assert summary_of(tmp_path)["status"] == "running"


def test_manifests_of_the_tables_that_were_read(tmp_path: Path) -> None:
    class Tables(LightningDataModule):
        train_table, val_table = tiny_table(8), None

        def train_dataloader(self) -> DataLoader:
            return DataLoader(TensorDataset(torch.ones(4, 1)))

    record = RunRecord(tmp_path, "fit", {}, "")
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", max_steps=1, logger=False, callbacks=[record], **quiet).fit(Line(), datamodule=Tables())
    assert summary_of(tmp_path)["splits"] == {"train": split_manifest(Tables.train_table)}
    table, rows = Tables.train_table, read_rows(row_file(tmp_path, "train"))
    assert rows.sample_id.tolist() == table.sample_id.tolist()
    assert rows.content_hash.tolist() == table.content_hash.tolist()
    assert rows.label.tolist() == [table.label_space[code] for code in table.label]
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["train.parquet"]


def test_rows_of_a_later_test_stand_beside_those_of_the_fit(tmp_path: Path) -> None:
    table = tiny_table(8)
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(val_table=table))
    for task, earlier in (("fit", None), ("validate", {"task": "fit"})):
        record = RunRecord(tmp_path, task, {}, "")
        record._earlier = earlier
        record._splits(trainer)
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["val.parquet", "val.validate.parquet"]


def test_state_keeps_the_wandb_id(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, "fit", {}, "")
    record.load_state_dict({"wandb_id": "abc"})
    state = record.state_dict()
    assert state["wandb_id"] == "abc" and state["run_id"] == record.run_id and state["best"] == {}
    record.wandb_id = "going-on"
    record.load_state_dict({"wandb_id": "abc"})
    assert record.wandb_id == "going-on"


def continued(folder: Path, **measured: float) -> dict[str, Any]:
    """Ends a continued fit that measured no more than this, and returns its summary."""
    record = RunRecord(folder, "fit", {}, "", continues=True)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.state.fn = "fit"  # type: ignore[assignment]
    record.setup(trainer, Line(), "fit")
    trainer._logger_connector._callback_metrics.update({name: torch.tensor(v) for name, v in measured.items()})
    record.on_validation_end(trainer, Line())
    record.teardown(trainer, Line(), "fit")
    return summary_of(folder)


def test_continued_run_keeps_what_earlier_attempts_measured(tmp_path: Path) -> None:
    metrics = {"val/accuracy": 0.75, "val/loss": 0.5, "val/nothing": None, "test/accuracy": 0.125}
    earlier = {"task": "fit", "status": "running", "metrics": metrics, "best": {"val/accuracy": 0.875, "val/loss": 0.5}}
    (tmp_path / "summary.json").write_text(json.dumps(earlier))
    summary = continued(tmp_path)  # killed between the last checkpoint and the last summary: nothing left to measure
    assert summary["status"] == "finished"
    assert summary["metrics"] == {"val/accuracy": 0.75, "val/loss": 0.5, "val/nothing": None}  # test: other weights
    assert summary["best"] == earlier["best"]
    summary = continued(tmp_path, **{"val/accuracy": 0.8125, "val/loss": 0.25, "val/temperature": 3.0})
    assert summary["metrics"]["val/accuracy"] == 0.8125 and summary["metrics"]["val/nothing"] is None
    assert summary["best"] == {"val/accuracy": 0.875, "val/loss": 0.25}


def test_a_run_that_is_interrupted_before_its_checkpoint_is_loaded_has_lost_no_step(tmp_path: Path) -> None:
    stored = {"run_id": "mine", "step": 5, "epoch": 1, "counts": {"real": 24, "synthetic": 16}}
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.state.fn = "fit"  # type: ignore[assignment]
    for before, generated in (({}, 0), ({"steps": 4}, 0), ({"steps": 5}, 12)):
        counts = {"real": 24, "synthetic": 16, "generated": 12}
        earlier = {"task": "fit", "run_id": "mine", "status": "running", "counts": counts, **before}
        (tmp_path / "summary.json").write_text(json.dumps(earlier))
        record = RunRecord(tmp_path, "fit", {}, "", continues=True, stored=stored)
        record.setup(trainer, Line(), "fit")
        record.on_exception(trainer, Line(), KeyboardInterrupt())
        said = summary_of(tmp_path)
        assert (said["status"], said["reason"], said["exit_code"]) == ("interrupted", "SIGINT", 130)
        assert (said["steps"], said["epochs"], said["counts"]["real"], said["counts"]["synthetic"]) == (5, 1, 24, 16)
        assert said["counts"].get("generated", 0) == generated  # as far as it is known


def test_when_a_run_began_survives_its_continuation_and_a_test(tmp_path: Path) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    fit(tmp_path)
    began = summary_of(tmp_path)["started"]
    assert before <= datetime.fromisoformat(began) <= datetime.now(timezone.utc)
    (tmp_path / "summary.json").write_text(json.dumps({**summary_of(tmp_path), "started": "2026-01-02T03:04:05+00:00"}))
    assert continued(tmp_path)["started"] == "2026-01-02T03:04:05+00:00"
    record = RunRecord(tmp_path, "test", {}, "")
    record.setup(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), Line(), "test")
    record.teardown(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), Line(), "test")
    assert summary_of(tmp_path)["started"] == "2026-01-02T03:04:05+00:00"
    assert summary_of(tmp_path)["test"]["started"] >= began


def test_new_run_forgets_what_lies_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"task": "fit", "metrics": {"val/accuracy": 0.75}}))
    fit(tmp_path)
    assert "val/accuracy" not in summary_of(tmp_path)["metrics"]


def test_best_travels_in_the_checkpoint(tmp_path: Path) -> None:
    record, another = RunRecord(tmp_path, "fit", {}, ""), RunRecord(tmp_path, "fit", {}, "")
    record.load_state_dict({"best": {"val/accuracy": 0.5, "val/ece": 0.25}})
    another.load_state_dict(record.state_dict())
    another.load_state_dict({"best": {"val/accuracy": 0.75, "val/ece": 0.5}})
    assert another.best == {"val/accuracy": 0.75, "val/ece": 0.25}


def test_the_commit_is_that_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Committing(Callback):
        def on_train_start(self, *args: Any) -> None:
            monkeypatch.setattr(run_record, "git_state", lambda: {"commit": "later", "dirty": False})

    monkeypatch.setattr(run_record, "git_state", lambda: {"commit": "start", "dirty": False})
    fit(tmp_path, Committing())
    assert summary_of(tmp_path)["git"]["commit"] == "start"


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_facts, "__file__", str(tmp_path / "process_facts.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() is None


def test_versions() -> None:
    assert {"python", "torch", "lightning"} <= set(versions())


def _burn(seconds: float, done: Any, end: Any) -> None:
    import time

    while time.process_time() < seconds:
        pass
    done.set()
    end.wait()


def test_cpu_seconds_include_live_workers() -> None:
    context = multiprocessing.get_context("fork")
    done, end = context.Event(), context.Event()
    before = cpu_seconds()
    worker = context.Process(target=_burn, args=(0.3, done, end))
    worker.start()
    try:
        assert done.wait(30)
        assert cpu_seconds() - before > 0.2
    finally:
        end.set()
        worker.join()
