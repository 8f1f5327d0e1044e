"""Run folders as train.py writes them, with made-up values: for tests and for the benchmark."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import yaml

from datamodules.expressions import LABEL_SPACES


def write_run(
    folder: Path,
    ratio: float = 0.0,
    seed: int = 1,
    accuracy: float = 0.6,
    label_space: str = "basic7",
    status: str = "finished",
    history: list[float] | None = None,
    summary: dict[str, Any] | None = None,
    splits: dict[str, str] | None = None,
    rows_per_value: int = 1,
    **settings: Any,
) -> Path:
    """Writes one run folder.

    Args:
        folder: to be made.
        ratio: ``data.synthetic_ratio``; the counts in the summary agree with it.
        seed: ``seed_everything``.
        accuracy: ``val/accuracy`` at the end.
        label_space: name of the label space.
        status: as recorded.
        history: ``val/accuracy`` at each validation; None = two validations, the last with ``accuracy``.
        summary: entries that replace the summary's own.
        splits: split → hash; None = the same for all runs.
        rows_per_value: rows of metrics.csv per validation, of which one holds the validation's metrics.
        **settings: further settings, dots written as double underscores (``guidance__step_size=0.1``).

    Returns:
        The folder.
    """
    config = _config(ratio, seed, label_space)
    for key, value in settings.items():
        *groups, name = key.split("__")
        node = config
        for group in groups:
            node = node.setdefault(group, {})
            node = node.get("init_args", node)
        node[name] = value
    names = LABEL_SPACES[label_space]
    metrics = {
        "train/loss": 1 - accuracy,
        "val/accuracy": accuracy,
        "val/ece": 0.1,
        "val/loss": 1.5 - accuracy,
        "val/macro_f1": accuracy - 0.05,
        "val/mean_class_accuracy": accuracy - 0.1,
        **{f"val/recall/{name}": max(0.0, accuracy - 0.02 * place) for place, name in enumerate(names)},
    }
    trained = 10_000
    record = {
        "task": "fit",
        "status": status,
        "config": config,
        "seed": seed,
        "git": None,
        "versions": {},
        "world_size": 1,
        "wall_s": 1.0,
        "counts": {"real": round(trained * (1 - ratio)), "synthetic": round(trained * ratio), "discarded": 0},
        "steps": 100,
        "wandb_id": None,
        "splits": {
            split: {"rows": 100, "sha256": digest}
            for split, digest in (splits or {"train": f"rows-of-seed-{seed}", "val": "same"}).items()
        },
        "metrics": metrics,
        **(summary or {}),
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "summary.json").write_text(json.dumps(record, indent=2) + "\n")
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", "lr-SGD/pg1", "train/loss_step", *metrics])
        writer.writeheader()
        values = [accuracy - 0.05, accuracy] if history is None else history
        for epoch, value in enumerate(values):
            for row in range(rows_per_value - 1):
                step = epoch * rows_per_value + row
                writer.writerow({"step": step, "lr-SGD/pg1": 0.1, "train/loss_step": random.random()})
            writer.writerow(
                {**metrics, "epoch": epoch, "step": (epoch + 1) * rows_per_value - 1, "val/accuracy": value}
            )
    return folder


def _config(ratio: float, seed: int, label_space: str) -> dict[str, Any]:
    return {
        "seed_everything": seed,
        "trainer": {"max_steps": 100, "precision": "32-true", "log_every_n_steps": 50},
        "model": {
            "class_path": "lightning_modules.classifier.ExpressionClassifier",
            "init_args": {"label_space": label_space, "backbone": "resnet18", "learning_rate": 0.1},
        },
        "data": {
            "reader": {"class_path": "datamodules.readers.FER2013Reader", "init_args": {"labels": "original"}},
            "batch_size": 64,
            "synthetic_ratio": ratio,
            "synthetic_multiple": None,
            "training_fraction": 1.0,
        },
        "run_dir": None,
        "synthesis": {"enabled": True, "generator": "runs/generator-own/checkpoints/last.ckpt", "max_reuse": 6.0},
        "guidance": {"enabled": True, "step_size": 0.1, "guide": "runs/guide/checkpoints/last.ckpt"},
    }
