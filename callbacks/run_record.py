"""config.yaml and summary.json of the run folder (C5)."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from callbacks.wandb_run import WandbRun
from datamodules.provenance import split_manifest
from datamodules.whole_file import whole_file
from lightning_modules.metrics.directions import better

PACKAGES = (
    "synfer",
    "torch",
    "torchvision",
    "lightning",
    "diffusers",
    "transformers",
    "timm",
    "torchmetrics",
    "peft",
    "jsonargparse",
)
"""Packages whose versions are recorded."""

COUNTS = ("real", "synthetic", "discarded")
"""Samples counted in every summary: trained on (real, synthetic) and thrown away by the vote (discarded)."""


class RunRecord(Callback):
    """Writes what a run was and what came of it.

    ``config.yaml`` and a summary with status "running" are written when the run starts, the final ``summary.json`` when
    it ends: status "finished", "failed" (with the error's line) or "interrupted". Only rank 0 writes; at the end of the
    loop every rank takes part in summing counts and CPU seconds. After a failure nobody waits for other ranks, and the
    counts are rank 0's alone (``counts_of``). ``wall_s`` and ``cpu_s`` run from the making of the trainer: importing
    packages is not part of them. ``started`` is when the first attempt began, in UTC.

    Counts come from everything that has a ``counts`` mapping of names to ints: the data module (real, synthetic) and
    the callbacks (discarded, …). Where validate, test or predict run in the folder of a finished fit, the fit's summary
    stays and gets their metrics.

    The W&B run id travels in the checkpoint, so that a continued run stays one W&B run. A continued run keeps what its
    earlier attempts measured and it has not measured again, for one that was killed after its last validation may have
    nothing left to measure. ``best`` holds the best value of each validation metric that can be good or bad
    (:mod:`lightning_modules.metrics.directions`), over all attempts.

    W&B gets the settings, the split manifest and, where asked, the checkpoints as artifacts, and best and last values
    in its summary.

    Args:
        run_dir: the run folder.
        task: fit, validate, test or predict.
        config: the resolved configuration as plain types.
        config_yaml: the same as the text of config.yaml.
        continues: whether a fit goes on from a checkpoint, so that what the folder holds is its own past.
        log_checkpoints: whether a finished fit gives W&B its checkpoints.
    """

    def __init__(
        self,
        run_dir: str | Path,
        task: str,
        config: Mapping[str, Any],
        config_yaml: str,
        continues: bool = False,
        log_checkpoints: bool = False,
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
        self._started, self._cpu_before = time.time(), cpu_seconds()
        self._begun = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._git = git_state()  # now: what is committed while the run goes on is not what runs
        self._totals: dict[str, float] | None = None
        self._earlier: dict[str, Any] | None = None
        self._manifests: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes config.yaml and the first summary."""
        self.wandb_id = _wandb_id(trainer) or self.wandb_id
        if not trainer.is_global_zero:
            return
        if self.task != "fit":
            self._earlier = _read_summary(self.run_dir / "summary.json")
        elif self.continues:
            before = _read_summary(self.run_dir / "summary.json") or {}
            measured = before.get("metrics", {}).items()
            self._metrics_before = {n: v for n, v in measured if not n.startswith("test/")}  # of other weights
            self._take_best(before.get("best", {}))
            self._begun = before.get("started", self._begun)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        name = "config.yaml" if self._earlier is None else f"config.{self.task}.yaml"
        (self.run_dir / name).write_text(self.config_yaml)
        if self._earlier is None:
            self._write(trainer, "running")
        for logger in trainer.loggers:
            logger.log_hyperparams(dict(self.config))
        for run in _wandb_runs(trainer):
            run.log_artifact(f"config-{run.version}", "config", [self.run_dir / name])
            if splits := self._splits(trainer):
                run.log_artifact("split-manifest", "dataset", contents={"splits.json": splits})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over ranks."""
        self._sum_over_ranks(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over ranks after ``validate``; inside ``fit`` the summary on disk gets the metrics so far."""
        if trainer.state.fn == "validate":
            self._sum_over_ranks(trainer)
        elif trainer.is_global_zero and not trainer.sanity_checking:
            measured = _plain(trainer.callback_metrics).items()
            last = {n: v for n, v in measured if n.startswith("val/") and v is not None}
            self._take_best(last)
            for run in _wandb_runs(trainer):
                run.summarise(
                    {f"last/{n}": v for n, v in last.items()} | {f"best/{n}": v for n, v in self.best.items()}
                )
            self._write(trainer, "running")

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
        self._write(trainer, "finished")
        for run in _wandb_runs(trainer):
            run.log_new_pictures(self.run_dir / "samples")
            checkpoints = sorted(_checkpoints(trainer)) if self.log_checkpoints and self.task == "fit" else []
            if checkpoints:
                run.log_artifact(f"checkpoints-{run.version}", "model", checkpoints)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the summary of a run that failed or was stopped, without waiting for other ranks."""
        if trainer.is_global_zero:
            stopped = isinstance(exception, (KeyboardInterrupt, SystemExit))
            error = "" if stopped else f"{type(exception).__name__}: {exception}"
            self._write(trainer, "interrupted" if stopped else "failed", error)

    def state_dict(self) -> dict[str, Any]:
        """Returns the W&B run id and the best validation metrics."""
        return {"wandb_id": self.wandb_id, "best": dict(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the stored W&B run id, unless a W&B run is going on (the entry point has given it that id already)."""
        self.wandb_id = self.wandb_id or state_dict.get("wandb_id")
        self._take_best(state_dict.get("best", {}))

    def _take_best(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            best = better(name, value, self.best.get(name, value))
            if best is not None:
                self.best[name] = best

    def _splits(self, trainer: Trainer) -> dict[str, Any]:
        """Returns split → manifest of the tables that the data module has read; each is hashed once."""
        data = getattr(trainer, "datamodule", None)
        for split in ("train", "val", "test"):
            table = getattr(data, f"{split}_table", None)
            if table is not None and split not in self._manifests:
                self._manifests[split] = split_manifest(table)
        return dict(self._manifests)

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

    def _write(self, trainer: Trainer, status: str, error: str = "") -> None:
        if self._totals is None:
            counts, cpu_s = _counts(trainer), cpu_seconds() - self._cpu_before
        else:
            counts = {n.removeprefix("counts/"): int(v) for n, v in self._totals.items() if n.startswith("counts/")}
            cpu_s = self._totals["cpu_s"]
        summary: dict[str, Any] = {
            "task": self.task,
            "status": status,
            **({"error": " ".join(error.split())} if error else {}),
            "config": self.config,
            "seed": self.config.get("seed_everything"),
            "git": self._git,
            "versions": versions(),
            "world_size": trainer.world_size,
            "started": self._begun,
            "wall_s": round(time.time() - self._started, 2),
            "cpu_s": round(cpu_s, 2),
            "counts": counts,
            "counts_of": "all ranks" if self._totals is not None or trainer.world_size == 1 else "rank 0",
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "wandb_id": self.wandb_id,
            "splits": self._splits(trainer),
            "metrics": dict(sorted({**self._metrics_before, **_plain(trainer.callback_metrics)}.items())),
            "best": dict(sorted(self.best.items())),
        }
        if self._earlier is not None:
            metrics = {**self._earlier.get("metrics", {}), **summary.pop("metrics")}
            for name in ("versions", "counts", "counts_of", "best"):
                summary.pop(name)
            summary = {**self._earlier, "metrics": metrics, self.task: summary}
        with whole_file(self.run_dir / "summary.json") as partial:
            partial.write_text(json.dumps(summary, indent=2, default=str) + "\n")


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and its data workers, those still alive included (on Linux).

    Other ranks that this process launched are not counted: each rank counts itself.
    """
    total = time.process_time()
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    for worker in multiprocessing.active_children():
        try:
            # Fields 14 and 15 of proc(5) "stat"; the command in brackets may hold spaces.
            fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def git_state() -> dict[str, Any] | None:
    """Returns commit and whether files differ from it; None where the code is not in a git repository."""

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _counts(trainer: Trainer) -> dict[str, int]:
    counts = dict.fromkeys(COUNTS, 0)
    for source in (getattr(trainer, "datamodule", None), *trainer.callbacks):  # type: ignore[attr-defined]
        for name, count in (getattr(source, "counts", None) or {}).items():
            counts[name] = counts.get(name, 0) + int(count)
    return counts


def _plain(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns metrics as floats, without learning rates; JSON knows no NaN, so a metric without a value is null."""
    values = {name: float(value) for name, value in metrics.items() if not name.startswith("lr-")}
    return {name: value if math.isfinite(value) else None for name, value in sorted(values.items())}


def _read_summary(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and found.get("task") == "fit" else None


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
