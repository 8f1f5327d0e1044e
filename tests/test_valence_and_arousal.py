"""Valence and arousal from the commands: trained beside the expressions, tested, written by the labelling."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import label
import train
from lightning_modules.labeller import Labeller
from tests.configs.test_configs import CONFIGS, ONE_BATCH

FILES = [f"--config={CONFIGS / name}" for name in ("data/drawn_affect.yaml", "classifier/affect.yaml")]
SMALL = [
    "--data.reader.init_args.count={train: 140, val: 28, test: 28}",
    "--data.reader.init_args.image_size=32",
    "--data.reader.init_args.variety=0.02",
    "--model.init_args.image_size=32",
    "--trainer.max_epochs=8",
    "--trainer.max_time=00:00:05:00",
    *(option for option in ONE_BATCH if "fast_dev_run" not in option and "batch_size" not in option),
    "--data.batch_size=14",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "affect"
    train.main(["fit", *FILES, *SMALL, f"--run_dir={folder}"])
    return folder


def test_the_record_holds_the_scores_and_what_was_known(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    metrics = summary["metrics"]
    assert {"val/ccc/valence", "val/ccc/arousal", "val/ccc_mean", "val/rmse/valence", "val/accuracy"} <= set(metrics)
    assert {"val/pearson/arousal", "val/sagr/arousal", "train/loss_affect"} <= set(metrics)
    assert metrics["val/pearson/valence"] > 0.3  # it has learned something
    assert summary["splits"]["train"]["known"] == {"expression": 140, "valence": 140, "arousal": 140}
    assert summary["best"]["val/ccc_mean"] >= metrics["val/ccc_mean"]


def test_the_test_split_is_scored_from_the_checkpoint(run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    cli = train.main(["test", *FILES, *SMALL, f"--ckpt_path={last}", f"--run_dir={run.parent / 'tested'}"])
    metrics = json.loads((run.parent / "tested" / "summary.json").read_text())["metrics"]
    table = cli.datamodule.test_table
    images = table.images.batch(np.arange(len(table))).float() / 255
    affect = Labeller.load_trained(run).look_at(list(images))[1]
    assert affect is not None
    errors = (affect - torch.from_numpy(table.affect)).double().square().mean(0).sqrt()
    assert [metrics["test/rmse/valence"], metrics["test/rmse/arousal"]] == pytest.approx(errors.tolist(), abs=1e-4)


def test_labelling_writes_both_columns(run: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(random.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    out = tmp_path / "labels.csv"
    assert label.main([str(tmp_path), "--checkpoint", str(run), "--out", str(out)]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-4:] == ["label", "confidence", "valence", "arousal"]
    for row, face in zip(rows, Labeller.load_trained(run).label([r["path"] for r in rows]), strict=True):
        assert float(row["valence"]) == pytest.approx(face.valence, abs=1e-6)
        assert float(row["arousal"]) == pytest.approx(face.arousal, abs=1e-6)
