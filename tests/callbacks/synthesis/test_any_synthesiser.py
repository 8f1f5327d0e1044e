"""Pool, vote, sets and sweeps ask whatever makes faces, and never for a diffusion model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

import compare
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
from datamodules.rows.source_faces import training_sources
from experiments.sweep import sweep_file
from lightning_modules.augmenter import SemanticAugmenter
from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis import synthesiser as seam
from synfer.synthesis.plan import EndlessPlan, EvenPlan
from synfer.synthesis.request import SamplingSettings
from synfer.synthesis.synthesiser import Synthesiser, TakesSources, changed_settings, load_synthesiser
from tests.fixtures.drawn_synthesiser import LOADER, DrawnModule, save_drawn
from tests.fixtures.tiny_augmenter import tiny_augmenter
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table
from tests.fixtures.tiny_generator import save_checkpoint, tiny_classifier, tiny_generator

SIDE = 32
MODULES: dict[str, Callable[[Path], LightningModule]] = {
    "drawn": lambda path: DrawnModule(BASIC7, SIDE),
    "diffusion": ExpressionGenerator.load_trained,
    "vae_gan": SemanticAugmenter.load_trained,
}
"""Kind → how ``predict`` and ``test`` get the module that :func:`folder` holds."""
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


@pytest.fixture(params=MODULES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a synthesiser of each kind under its name, and two voters."""
    folder = tmp_path_factory.mktemp("any")
    save_drawn(folder / "drawn", BASIC7, SIDE)
    fast = SamplingSettings(num_steps=2, guidance_scale=1.0)
    settings: dict[str, Any] = {"label_space": list(BASIC7), "image_size": SIDE}
    for name, module in (
        ("diffusion", tiny_generator(sampling=fast, **settings)),
        ("vae_gan", tiny_augmenter(perturbation={"strength": 3.0}, **settings)),
    ):
        (folder / name / "checkpoints").mkdir(parents=True)
        save_checkpoint(module, folder / name / "checkpoints" / "last.ckpt")
    for seed in (1, 2):
        voter = tiny_classifier(BASIC7, seed, image_size=SIDE, backbone_kwargs=VIT)
        save_checkpoint(voter, folder / f"voter{seed}.ckpt")
    return folder


def synthesiser(path: Path) -> Synthesiser:
    """Loads a synthesiser that makes its faces of those of :func:`data`, where it makes them of others."""
    loaded = load_synthesiser(path)
    if isinstance(loaded, TakesSources):
        loaded.use_sources(training_sources(data(), "source face"), BASIC7)
    return loaded


def checkpoint(kind: str, folder: Path) -> str | None:
    return None if kind == "drawn" else str(folder / kind / "checkpoints" / "last.ckpt")


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


def test_a_classifier_trains_on_them_after_a_vote(kind: str, folder: Path, tmp_path: Path) -> None:
    online = OnlineSynthesis(True, str(folder / kind), batch_size=7, max_reuse=1000)
    labeller, table, pool = vote(folder), FaceTable(14), PoolAtEnd()
    model = tiny_classifier(BASIC7, image_size=SIDE, backbone_kwargs=VIT)
    trainer(tmp_path, online, labeller, table, pool).fit(model, datamodule=data(synthetic_ratio=0.5))
    own = synthesiser(folder / kind)
    asked = EndlessPlan(BASIC7, seed=5, settings=own.sampling, au_names=own.au_names).request(range(7))
    faces = own.synthesise(asked, [vote(folder)])
    assert (pool.samples["image"].int() - faces.images.int()).abs().amax() <= (kind != "drawn")
    torch.testing.assert_close(pool.samples["soft_label"], faces.soft_label)
    assert labeller.seen == online.made == 7
    assert (tmp_path / "samples" / "synthetic_faces.png").is_file()
    assert (tmp_path / "samples" / "pseudo_labels.png").is_file()


@pytest.mark.parametrize("kind", ["drawn", "vae_gan"], indirect=True)
def test_a_layout_that_it_cannot_take_ends_the_fit_in_one_line(kind: str, folder: Path, tmp_path: Path) -> None:
    online = OnlineSynthesis(True, str(folder / kind), batch_size=7)
    model = tiny_classifier(BASIC7, image_size=SIDE, backbone_kwargs=VIT)
    with pytest.raises(ValueError, match=r"^layout.enabled=true: found LayoutInitialisation, .* beside [A-Z]"):
        trainer(tmp_path, online, LayoutInitialisation(True)).fit(model, datamodule=data(synthetic_ratio=0.5))


@pytest.mark.parametrize("kind", ["vae_gan"], indirect=True)
def test_settings_of_any_kind_are_replaced_on_the_fly(kind: str, folder: Path, tmp_path: Path) -> None:
    online = OnlineSynthesis(True, str(folder / kind), batch_size=7, max_reuse=1000, settings={"strength": 0.0})
    pool = PoolAtEnd()
    model = tiny_classifier(BASIC7, image_size=SIDE, backbone_kwargs=VIT)
    trainer(tmp_path, online, pool).fit(model, datamodule=data(synthetic_ratio=0.5))
    own = synthesiser(folder / kind)
    still = changed_settings(own, {"strength": 0.0}, "")
    rebuilt = own.synthesise(EndlessPlan(BASIC7, 5, settings=still, au_names=()).request(range(7))).images.int()
    assert (pool.samples["image"].int() - rebuilt).abs().amax() <= 1
    online = OnlineSynthesis(True, str(folder / kind), batch_size=7, settings={"strength": -1.0})
    with pytest.raises(
        ValueError, match=r"^synthesis.settings {'strength': -1.0}: perturbation.strength: found -1.0, ex"
    ):
        trainer(tmp_path, online).fit(model, datamodule=data(synthetic_ratio=0.5))


def test_a_set_is_written_interrupted_and_finished(kind: str, folder: Path, tmp_path: Path) -> None:
    def predict(count: int) -> None:
        made = data(predict_split="synthesis", synthesis_count=count, eval_batch_size=4)
        writer = SyntheticSetWriter(str(tmp_path / "set"), shard_seconds=0)  # a shard per batch
        trainer(tmp_path, vote(folder), writer).predict(
            MODULES[kind](folder / kind), made, return_predictions=False, ckpt_path=checkpoint(kind, folder)
        )

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
    own = synthesiser(folder / kind)
    images = own.synthesise(EvenPlan(10, BASIC7, 5, own.sampling, own.au_names).request(range(10))).images
    assert (read.images.batch(order).int() - images.int()).abs().amax() <= (kind != "drawn")
    assert [bool(row["layout_source"]) for row in rows] == [kind == "vae_gan"] * 10


def test_a_generator_s_test_scores_them(kind: str, folder: Path, tmp_path: Path) -> None:
    test = GeneratorTest(samples=14, batch_size=4, judge=str(folder / "voter1.ckpt"), nearest_training=0)
    tester = trainer(tmp_path, test)
    tester.test(MODULES[kind](folder / kind), data(), ckpt_path=checkpoint(kind, folder), verbose=False)
    own = synthesiser(folder / kind)
    faces = own.synthesise(EvenPlan(14, BASIC7, 5, own.sampling, own.au_names).request(range(14)))
    judge = tiny_classifier(BASIC7, 1, image_size=SIDE, backbone_kwargs=VIT)
    with torch.no_grad():
        seen = judge.predict_probabilities(faces.images.float() / 255).argmax(1)
    metrics = tester.callback_metrics
    accuracy = float((seen == faces.label).float().mean())
    assert float(metrics["test/fer_accuracy"]) == pytest.approx(accuracy, abs=0 if kind == "drawn" else 1 / 13)
    assert metrics["test/near_copies"] == 0 and float(metrics["test/images_per_s"]) > 0
    assert ("test/source_similarity" in metrics) == (kind == "vae_gan")


@pytest.mark.slow
def test_a_sweep_runs_on_them_and_is_compared(
    kind: str, folder: Path, tmp_path: Path, tiny_run: list[str], monkeypatch: pytest.MonkeyPatch
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
            "synthesis.generator": {"value": str(folder / kind)},
        },
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert sweep.main(["s.yaml"]) == 0
    (run,) = (tmp_path / "runs" / "s").glob("*/summary.json")
    found = json.loads(run.read_text())
    assert found["status"] == "finished" and found["counts"]["synthetic"] == found["counts"]["real"] > 0
    assert found["counts"]["generated"] >= 14
    assert compare.main([str(tmp_path / "runs" / "s"), "--metric=val/accuracy", f"--out={tmp_path / 'report'}"]) == 0
    assert (tmp_path / "report" / "report.html").is_file() and (tmp_path / "report" / "table.csv").is_file()
