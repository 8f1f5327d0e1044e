"""config.yaml and summary.json of the run folder (C5)."""

from __future__ import annotations

import math
import secrets
import signal
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from callbacks.agreed_stop import stop_signal
from callbacks.recording.process_facts import cpu_seconds, git_state, versions
from callbacks.recording.run_checkpoint import RunCheckpoint
from callbacks.recording.wandb_run import WandbRun
from datamodules.rows.provenance import split_manifest
from datamodules.rows.sample_table import SampleTable
from lightning_modules.trainer_access import data_of
from synfer.runs.lost_connection import is_lost_connection
from synfer.runs.row_file import row_file, write_rows
from synfer.runs.run_end import RunEnd, interrupted_by
from synfer.runs.run_format import (
    SAMPLES,
    last_checkpoint,
    mark_summary,
    read_fit_summary,
    read_summary,
    take_best,
    write_config,
    write_summary,
)

COUNTS = ("real", "synthetic", "discarded")
"""Samples counted in every summary: trained on (real, synthetic) and thrown away by the vote (discarded)."""


class RunRecord(Callback):
    """Writes what a run was and what came of it.

    ``config.yaml`` and a summary with status "running" are written when the run starts, the final ``summary.json`` when
    it ends, with how it ended (:class:`~synfer.runs.run_end.RunEnd`). Only rank 0 writes; at the end all ranks of a
    loop sum counts and CPU seconds. After a failure nobody waits for other ranks, and the counts are rank 0's alone
    (``counts_of``). ``wall_s`` and ``cpu_s`` run from the making of the trainer, importing packages left out,
    over all attempts: what an attempt did between its last record and a kill is not known and not counted. ``started``
    is when the first attempt began, in UTC.

    The rows of each split that is read are in ``rows/`` (:mod:`synfer.runs.row_file`), one hash of each in the summary.

    Counts come from everything that has a ``counts`` mapping of names to ints: the data module (real, synthetic) and
    the callbacks (discarded, …). Where validate, test or predict run in the folder of a finished fit, the fit's summary
    stays and gets their metrics.

    The W&B run id travels in the checkpoint, so that a continued run stays one W&B run. A continued run keeps what its
    earlier attempts measured and it has not measured again, for one that was killed after its last validation may have
    nothing left to measure. ``best`` holds the best value of each validation metric that can be good or bad
    (:mod:`synfer.metrics.directions`), over all attempts.

    W&B gets the settings, the split manifest and, where asked, the checkpoints as artifacts, and best and last values
    in its summary.

    Args:
        run_dir: the run folder.
        task: fit, validate, test or predict.
        config: the resolved configuration as plain types.
        config_yaml: the same as the text of config.yaml.
        continues: whether a fit goes on from a checkpoint, so that what the folder holds is its own past.
        log_checkpoints: whether a finished fit gives W&B its checkpoints.
        stored: the state of this callback in the checkpoint that a fit goes on from, and its step.
        launch: what is to be said of the job that this attempt is a start of: its name, how often it was started again.

    Attributes:
        end: how the run ended; None while it runs.
    """

    def __init__(
        self,
        run_dir: str | Path,
        task: str,
        config: Mapping[str, Any],
        config_yaml: str,
        continues: bool = False,
        log_checkpoints: bool = False,
        stored: Mapping[str, Any] | None = None,
        launch: Mapping[str, Any] | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.task = task
        self.config = config
        self.config_yaml = config_yaml
        self.continues = continues
        self.log_checkpoints = log_checkpoints
        self.best: dict[str, float] = {}
        self._metrics_before: dict[str, Any] = {}
        self.wandb_id: str | None = None
        self.end: RunEnd | None = None
        self.run_id = str((stored or {}).get("run_id") or secrets.token_hex(8))
        self._stored = dict(stored or {})
        self._launch = dict(launch or {})
        self._counts_before: tuple[dict[str, int], str] = dict(self._stored.get("counts", {})), "all ranks"
        self._attempts = list(self._stored.get("attempts", []))
        self._earlier_s = {name: float(self._stored.get(name, 0)) for name in ("wall_s", "cpu_s")}
        self._world_size = 1
        self._way_on: str | None = None
        self._last_step = 0
        # No clock that somebody may set: a record must not say that a run took less than no time.
        self._started, self._cpu_before = time.monotonic(), cpu_seconds()
        self._git = git_state()  # now: what is committed while the run goes on is not what runs
        self._totals: dict[str, float] | None = None
        self._earlier: dict[str, Any] | None = None
        self._manifests: dict[str, Any] = {}
        self._loss: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes config.yaml and the first summary."""
        self.wandb_id = _wandb_id(trainer) or self.wandb_id
        self._world_size = trainer.world_size
        attempt = {"started": _now(), "seed": self.config.get("seed_everything"), "world_size": trainer.world_size}
        self._attempts.append({**attempt, "from_step": int(self._stored.get("step", 0)), **self._launch})
        if not trainer.is_global_zero:
            return
        if self.task != "fit":
            self._earlier = read_fit_summary(self.run_dir)
        elif self.continues:
            self._take_over(read_fit_summary(self.run_dir) or {})
        self.run_dir.mkdir(parents=True, exist_ok=True)
        config = write_config(self.run_dir, self.config_yaml, None if self._earlier is None else self.task)
        if self._earlier is None:
            self._write(trainer)
        for logger in trainer.loggers:
            logger.log_hyperparams(dict(self.config))
        for run in _wandb_runs(trainer):
            run.log_artifact(f"config-{run.version}", "config", [config])
            if splits := self._splits(trainer):
                run.log_artifact("split-manifest", "dataset", contents={"splits.json": splits})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over ranks."""
        self._sum_over_ranks(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over ranks where a fit that goes on had no step left, and so neither begins nor ends a training."""
        if self._totals is None:
            self._sum_over_ranks(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over ranks after ``validate``; inside ``fit`` the summary on disk gets the metrics so far."""
        if trainer.state.fn == "validate":
            self._sum_over_ranks(trainer)
        elif trainer.is_global_zero and not trainer.sanity_checking:
            measured = _plain(trainer.callback_metrics).items()
            last = {n: v for n, v in measured if n.startswith("val/") and v is not None}
            take_best(self.best, last)
            for run in _wandb_runs(trainer):
                run.summarise(
                    {f"last/{n}": v for n, v in last.items()} | {f"best/{n}": v for n, v in self.best.items()}
                )
            self._write(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over ranks."""
        self._sum_over_ranks(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over ranks."""
        self._sum_over_ranks(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the final summary."""
        if not trainer.is_global_zero:
            return
        self.end = self.end or self._regular_end(trainer)
        self._write(trainer, self.end)
        for run in _wandb_runs(trainer):
            run.log_new_pictures(self.run_dir / SAMPLES)
            checkpoints = sorted(_checkpoints(trainer)) if self.log_checkpoints and self.task == "fit" else []
            if checkpoints:
                run.log_artifact(f"checkpoints-{run.version}", "model", checkpoints)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the summary of a run that failed or was stopped; after a failure without waiting for other ranks."""
        if isinstance(exception, (KeyboardInterrupt, SystemExit)):
            self.end = interrupted_by(stop_signal(trainer) or _signal_of(exception))
        else:
            self.end = RunEnd("failed", f"{type(exception).__name__}: {exception}", 1)
        if isinstance(exception, SIGTERMException):  # all ranks stop after the same step
            self._sum_over_ranks(trainer)
        for checkpoint in trainer.checkpoint_callbacks:  # which come last: the record is to name what they write
            if isinstance(checkpoint, RunCheckpoint):
                checkpoint.save_where_stopped(trainer, exception)
        if not trainer.is_global_zero:
            return
        try:
            self._write(trainer, self.end)
        except OSError as error:  # no space left, most likely, and then the reason of the failure itself
            rank_zero_warn(f"{self.run_dir / 'summary.json'} cannot be written: {error}")
            mark_summary(self.run_dir, self.end.status)

    def state_dict(self) -> dict[str, Any]:
        """Returns what the next attempt goes on with: ids, best validation metrics, attempts and seconds so far."""
        return {
            "wandb_id": self.wandb_id,
            "run_id": self.run_id,
            "best": dict(self.best),
            "attempts": [dict(attempt) for attempt in self._attempts],
            **self._seconds(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the best values in a fit that goes on, and the stored W&B run id, unless a W&B run is going on.

        The rest is known already: the entry point reads it before anything is made.
        """
        self.wandb_id = self.wandb_id or state_dict.get("wandb_id")
        if self.task == "fit":
            take_best(self.best, state_dict.get("best", {}))

    def last_words(self) -> str | None:
        """Returns one line for whoever started a fit that is not whole, why and how it goes on; None = no need."""
        if self.task != "fit" or self.end is None or self.end.complete or self.end.status == "failed":
            return None
        way = f"; {self._way_on} goes on" if self._way_on else ""
        return f"{self.end.status} ({self.end.reason}) after step {self._last_step}{way}"

    def note_loss(self, line: str) -> None:
        """Writes that the run has failed because another rank is gone; from a thread, before the process is ended.

        A failure of the run itself stays what it is; a lost connection, which is all that this rank has seen, does not.
        """
        self._loss = line
        summary = read_summary(self.run_dir)
        if summary.get("status") == "running" or is_lost_connection(summary.get("error", "")):
            last = last_checkpoint(self.run_dir)
            end = RunEnd("failed", line, 1).as_record(str(last) if last.is_file() else None)
            write_summary(self.run_dir, {**summary, **end, "reason": "error", "error": line})

    def _take_over(self, before: Mapping[str, Any]) -> None:
        """Takes what the folder's summary knows of the attempts before and the checkpoint does not.

        A run that was killed after its last validation has nothing left to measure. Of one that goes on from an earlier
        checkpoint than its last, what came after that is no part of it any more; its time was spent all the same.
        """
        if "run_id" not in self._stored:  # an older checkpoint; refuse_occupied has seen to it that it is of this run
            self.run_id = str(before.get("run_id") or self.run_id)
            self._attempts[0]["started"] = before.get("started", self._attempts[0]["started"])
        same = before.get("run_id") in (None, self.run_id)
        if same and before.get("steps", 0) <= self._stored.get("step", before.get("steps", 0)):
            measured = before.get("metrics", {}).items()
            self._metrics_before = {n: v for n, v in measured if not n.startswith("test/")}  # of other weights
            take_best(self.best, before.get("best", {}))
        if same and "counts" in before and before.get("steps") == self._stored.get("step"):
            self._counts_before = before["counts"], before.get("counts_of", "rank 0")
        if same:
            for name in self._earlier_s:
                self._earlier_s[name] = max(self._earlier_s[name], float(before.get(name) or 0))

    def _regular_end(self, trainer: Trainer) -> RunEnd:
        """Returns how a run ended that raised nothing."""
        if self.task != "fit":
            return RunEnd("finished", self.task)
        loop = trainer.fit_loop
        if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
            return RunEnd("finished", "steps")
        begun = loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        whole = begun - int(not loop.epoch_loop._num_ready_batches_reached())
        if not trainer.should_stop or (trainer.max_epochs not in (None, -1) and whole >= int(trainer.max_epochs or 0)):
            return RunEnd("finished", "epochs")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and (callback.time_remaining() or 0.0) <= 0 and callback._duration:
                return RunEnd("stopped", "time")
            if isinstance(callback, EarlyStopping) and callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
                finite = callback.stopping_reason != EarlyStoppingReason.NON_FINITE_METRIC
                return RunEnd("stopped", "patience" if finite else f"{callback.monitor} is not finite")
        return RunEnd("stopped", "request")

    def _seconds(self) -> dict[str, float]:
        """Returns wall and CPU seconds of all attempts; before the end this rank's CPU stands for every rank's."""
        now = (time.monotonic() - self._started, (cpu_seconds() - self._cpu_before) * self._world_size)
        return {name: self._earlier_s[name] + s for name, s in zip(("wall_s", "cpu_s"), now, strict=True)}

    def _splits(self, trainer: Trainer) -> dict[str, Any]:
        """Returns split → manifest of the tables that the data module has read; each is hashed once."""
        data = data_of(trainer)
        for split in ("train", "val", "test"):
            table = getattr(data, f"{split}_table", None)
            if table is not None and split not in self._manifests:
                self._manifests[split] = split_manifest(table)
                self._write_rows(split, table)
        return dict(self._manifests)

    def _write_rows(self, split: str, table: SampleTable) -> None:
        """Writes the ids and hashes of a split; called on rank 0 alone."""
        path = row_file(self.run_dir, split, None if self._earlier is None else self.task)
        try:
            write_rows(path, table.sample_id, table.content_hash, table.label, table.label_space, table.group)
        except OSError as error:  # a full disk: the hash of the rows is in the summary all the same
            rank_zero_warn(f"'{path}' cannot be written: {error}")

    def _sum_over_ranks(self, trainer: Trainer) -> None:
        own = {
            **{f"counts/{name}": float(n) for name, n in _counts(trainer).items()},
            "cpu_s": cpu_seconds() - self._cpu_before,
        }
        names = sorted(own)
        device = trainer.strategy.root_device
        # float32 on devices without float64 still counts exactly up to 2^24; everywhere else float64 does to 2^53.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        values = torch.tensor([own[name] for name in names], dtype=dtype, device=device)
        summed = trainer.strategy.reduce(values, reduce_op="sum")
        assert isinstance(summed, torch.Tensor)
        self._totals = dict(zip(names, summed.tolist(), strict=True))

    def _write(self, trainer: Trainer, end: RunEnd | None = None) -> None:
        seconds = self._seconds()
        if self._totals is None:
            counts = _counts(trainer)
        else:
            counts = {n.removeprefix("counts/"): int(v) for n, v in self._totals.items() if n.startswith("counts/")}
            seconds["cpu_s"] = self._earlier_s["cpu_s"] + self._totals["cpu_s"]
        counts_of = "all ranks" if self._totals is not None or trainer.world_size == 1 else "rank 0"
        steps, epochs = trainer.global_step, trainer.current_epoch
        if self.task == "fit" and steps < self._stored.get("step", 0):  # its checkpoint has not been loaded yet
            steps, epochs = self._stored["step"], self._stored.get("epoch", 0)
            before, counts_of = self._counts_before
            counts |= before
        outcome: dict[str, Any] = {"status": "running"}
        if end is not None:
            outcome = end.as_record(_last_checkpoint(trainer) if self.task == "fit" else None)
            self._way_on, self._last_step = outcome.get("continue_with"), steps
            if end.status == "failed":
                error = self._loss if self._loss and is_lost_connection(end.reason) else end.reason
                outcome["reason"], outcome["error"] = "error", " ".join(error.split())
            for run in _wandb_runs(trainer):
                run.summarise({f"end/{name}": value for name, value in outcome.items()})
        summary: dict[str, Any] = {
            "task": self.task,
            **outcome,
            "run_id": self.run_id,
            "config": self.config,
            "seed": self.config.get("seed_everything"),
            "started": self._attempts[0]["started"] if self._attempts else _now(),
            "attempts": self._attempts,
            "git": self._git,
            "versions": versions(),
            "world_size": trainer.world_size,
            "wall_s": round(seconds["wall_s"], 2),
            "cpu_s": round(seconds["cpu_s"], 2),
            **({"weights_from": source} if (source := _weights_source(trainer)) else {}),
            "counts": counts,
            "counts_of": counts_of,
            "steps": steps,
            "epochs": epochs,
            "wandb_id": self.wandb_id,
            "splits": self._splits(trainer),
            "metrics": dict(sorted({**self._metrics_before, **_plain(trainer.callback_metrics)}.items())),
            "best": dict(sorted(self.best.items())),
        }
        if self._earlier is not None:
            metrics = {**self._earlier.get("metrics", {}), **summary.pop("metrics")}
            for name in ("versions", "counts", "counts_of", "best", "run_id"):
                summary.pop(name)
            summary = {**self._earlier, "metrics": metrics, self.task: summary}
        write_summary(self.run_dir, summary)


def _counts(trainer: Trainer) -> dict[str, int]:
    counts = dict.fromkeys(COUNTS, 0)
    for source in (data_of(trainer), *trainer.callbacks):  # type: ignore[attr-defined]
        for name, count in (getattr(source, "counts", None) or {}).items():
            counts[name] = counts.get(name, 0) + int(count)
    return counts


def _plain(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns metrics as floats, without learning rates; JSON knows no NaN, so a metric without a value is null."""
    values = {name: float(value) for name, value in metrics.items() if not name.startswith("lr-")}
    return {name: value if math.isfinite(value) else None for name, value in sorted(values.items())}


def _weights_source(trainer: Trainer) -> dict[str, str] | None:
    """Returns the file that the model's weights began with, and its fingerprint; None where it is not of that kind."""
    return getattr(trainer.lightning_module, "weights_source", None)


def _signal_of(exception: BaseException) -> int:
    """Returns the number of the signal that raised an exception before the first step; 0 = none."""
    if isinstance(exception, KeyboardInterrupt):
        return int(signal.SIGINT)
    code = exception.code if isinstance(exception, SystemExit) else 0
    return code - 128 if isinstance(code, int) and code > 128 else 0


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _last_checkpoint(trainer: Trainer) -> str | None:
    paths = [c.last_model_path for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    return next((path for path in paths if path and Path(path).is_file()), None)


def _wandb_runs(trainer: Trainer) -> list[WandbRun]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbRun)]


def _checkpoints(trainer: Trainer) -> set[Path]:
    """Returns the last and the best checkpoint of each kind that is kept."""
    kept = [
        (c.last_model_path, c.best_model_path) for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)
    ]
    return {Path(path) for pair in kept for path in pair if path and Path(path).is_file()}


def _wandb_id(trainer: Trainer) -> str | None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and isinstance(logger.version, str):
            return logger.version
    return None
