"""Pool, vote, sets and sweeps ask whatever makes faces, and never for a diffusion model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer

import sweep
from callbacks.generator_test import GeneratorTest
from callbacks.synthesis.face_table import FaceTable
from callbacks.synthesis.layout_initialisation import LayoutInitialisation
from callbacks.synthesis.online_synthesis import OnlineSynthesis
from callbacks.synthesis.pseudo_labeller import PseudoLabeller
from callbacks.synthesis.synthetic_set_writer import SyntheticSetWriter
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.readers.synthetic_set import SyntheticSetReader
from experiments.sweep import sweep_file
from synfer.synthesis import synthesiser as seam
from synfer.synthesis.plan import EndlessPlan, EvenPlan
from tests.fixtures.drawn_synthesiser import LOADER, DrawnModule, DrawnSynthesiser, save_drawn
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table
from tests.fixtures.tiny_generator import save_checkpoint, tiny_classifier

SIDE = 32
VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
PROJECT = Path(sweep.__file__).parent
PROGRAM = f"""
from synfer.synthesis.synthesiser import SYNTHESISERS

SYNTHESISERS["drawn"] = "{LOADER}"

from experiments.command_line.train_command import main

main()
"""


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seam.SYNTHESISERS, "drawn", LOADER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("any")
    save_drawn(folder / "drawn", BASIC7, SIDE)
    for seed in (1, 2):
        voter = tiny_classifier(BASIC7, seed, image_size=SIDE, backbone_kwargs=VIT)
        save_checkpoint(voter, folder / f"voter{seed}.ckpt")
    return folder


def data(**changes: Any) -> ExpressionDataModule:
    tables = {split: tiny_table(28, split, SIDE) for split in ("train", "val", "test")}
    settings = {"batch_size": 8, "seed": 5, "augmentation": Augmentation(enabled=False), **changes}
    return ExpressionDataModule(TinyReader(**tables), **settings)


def trainer(folder: Path, *callbacks: Callback) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[*callbacks],
        **quiet,  # type: ignore[arg-type]
    )


def vote(folder: Path) -> PseudoLabeller:
    return PseudoLabeller(True, [str(folder / "voter1.ckpt"), str(folder / "voter2.ckpt")])


class PoolAtEnd(Callback):
    """Reads the pool before it is deleted."""

    samples: dict[str, Any]

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        pool = trainer.datamodule.pool  # type: ignore[attr-defined]
        self.samples = pool.read(range(pool.filled))


def test_a_classifier_trains_on_them_after_a_vote(folder: Path, tmp_path: Path) -> None:
    online = OnlineSynthesis(True, str(folder / "drawn"), batch_size=7, max_reuse=1000)
    labeller, table, pool = vote(folder), FaceTable(14), PoolAtEnd()
    model = tiny_classifier(BASIC7, image_size=SIDE, backbone_kwargs=VIT)
    trainer(tmp_path, online, labeller, table, pool).fit(model, datamodule=data(synthetic_ratio=0.5))
    asked = EndlessPlan(BASIC7, seed=5).request(range(7))
    faces = DrawnSynthesiser(BASIC7, SIDE).synthesise(asked, [vote(folder)])
    assert torch.equal(pool.samples["image"], faces.images)
    torch.testing.assert_close(pool.samples["soft_label"], faces.soft_label)
    assert labeller.seen == online.made == 7
    assert (tmp_path / "samples" / "synthetic_faces.png").is_file()
    assert (tmp_path / "samples" / "pseudo_labels.png").is_file()


def test_a_layout_that_it_cannot_take_ends_the_fit_in_one_line(folder: Path, tmp_path: Path) -> None:
    online = OnlineSynthesis(True, str(folder / "drawn"), batch_size=7)
    model = tiny_classifier(BASIC7, image_size=SIDE, backbone_kwargs=VIT)
    with pytest.raises(ValueError, match=r"^layout.enabled=true: found LayoutInitialisation, .* beside DrawnSynth"):
        trainer(tmp_path, online, LayoutInitialisation(True)).fit(model, datamodule=data(synthetic_ratio=0.5))


def test_a_set_is_written_interrupted_and_finished(folder: Path, tmp_path: Path) -> None:
    def predict(count: int) -> None:
        made = data(predict_split="synthesis", synthesis_count=count, eval_batch_size=4)
        writer = SyntheticSetWriter(str(tmp_path / "set"))
        module = DrawnModule(BASIC7, SIDE)
        trainer(tmp_path, vote(folder), writer).predict(module, datamodule=made, return_predictions=False)

    predict(6)
    first = sorted(path.name for path in (tmp_path / "set" / "data").glob("*.parquet"))
    predict(10)
    rows = [
        row for path in sorted((tmp_path / "set" / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    assert len(first) == 2 and sorted(row["sample_id"] for row in rows) == [f"syn-5-{i:06d}" for i in range(10)]
    assert all(len(row["votes"]) == 2 for row in rows)
    read = SyntheticSetReader(str(tmp_path / "set"), label_space="basic7").read("train")
    order = np.argsort(read.sample_id)
    asked = EvenPlan(10, BASIC7, seed=5).request(range(10))
    images = DrawnSynthesiser(BASIC7, SIDE).synthesise(asked).images
    assert np.array_equal(read.images.batch(order).numpy(), images.numpy())


def test_a_generator_s_test_scores_them(folder: Path, tmp_path: Path) -> None:
    test = GeneratorTest(samples=14, batch_size=4, judge=str(folder / "voter1.ckpt"), nearest_training=0)
    own = trainer(tmp_path, test)
    own.test(DrawnModule(BASIC7, SIDE), datamodule=data(), verbose=False)
    faces = DrawnSynthesiser(BASIC7, SIDE).synthesise(EvenPlan(14, BASIC7, seed=5).request(range(14)))
    judge = tiny_classifier(BASIC7, 1, image_size=SIDE, backbone_kwargs=VIT)
    with torch.no_grad():
        seen = judge.predict_probabilities(faces.images.float() / 255).argmax(1)
    metrics = own.callback_metrics
    assert float(metrics["test/fer_accuracy"]) == pytest.approx(float((seen == faces.label).float().mean()))
    assert metrics["test/near_copies"] == 0 and float(metrics["test/images_per_s"]) > 0


@pytest.mark.slow
def test_a_sweep_runs_on_them(
    folder: Path, tmp_path: Path, tiny_run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text(PROGRAM)
    monkeypatch.setattr(sweep_file, "PROJECT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    fixed = [*tiny_run, "--trainer.logger=false", "--synthesis.enabled=true", "--synthesis.batch_size=14"]
    content = {
        "program": "train.py",
        "method": "grid",
        "command": ["${env}", "${interpreter}", "${program}", "fit", *fixed, "${args}"],
        "parameters": {
            "data.synthetic_ratio": {"values": [0.5]},
            "synthesis.generator": {"value": str(folder / "drawn")},
        },
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert sweep.main(["s.yaml"]) == 0
    (run,) = (tmp_path / "runs" / "s").glob("*/summary.json")
    found = json.loads(run.read_text())
    assert found["status"] == "finished" and found["counts"]["synthetic"] == found["counts"]["real"] > 0
    assert found["counts"]["generated"] >= 14
