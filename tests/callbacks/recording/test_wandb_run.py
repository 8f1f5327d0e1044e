"""W&B: offline unless logged in, and never a crash."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from callbacks.recording import wandb_run
from callbacks.recording.run_record import RunRecord
from callbacks.recording.wandb_run import (
    MAX_FAILURES,
    WandbOptions,
    WandbRun,
    choose_group,
    choose_mode,
    finish_wandb,
)


@pytest.fixture(autouse=True)
def _logged_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)


def test_offline_unless_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert choose_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert choose_mode() == "offline"  # W&B would ask for a key
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password not-a-key\n")
    assert choose_mode() == "online"


@pytest.mark.parametrize(("asked", "mode"), [("disabled", "disabled"), ("dryrun", "offline"), ("offline", "offline")])
def test_what_the_user_asks_for_wins(monkeypatch: pytest.MonkeyPatch, asked: str, mode: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "not-a-key")
    assert choose_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", asked)
    assert choose_mode() == mode


def test_server_out_of_reach_means_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import wandb

    modes = []

    class Run:
        id = "abc"

    def init(**settings: object) -> Run:
        modes.append(settings["mode"])
        if settings["mode"] == "online":
            raise wandb.errors.CommError("no route")
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", "not-a-key")
    logger = WandbRun(tmp_path / "group" / "run")
    with pytest.warns(UserWarning, match="kept offline"):
        assert logger.experiment.id == "abc"
    assert modes == ["online", "offline"]


@pytest.mark.slow
def test_refused_connection_of_the_real_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wandb_run, "CONNECT_SECONDS", 2)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    logger = WandbRun(tmp_path)
    assert logger._wandb_init["mode"] == "online"
    try:
        with pytest.warns(UserWarning, match="cannot be reached.*kept offline"):
            logger.log_metrics({"train/loss": 0.5}, 1)
        assert logger.failures == 0 and logger.experiment.summary["train/loss"] == 0.5
    finally:
        finish_wandb()
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


def test_name_and_group_come_from_the_folder(tmp_path: Path) -> None:
    logger = WandbRun(tmp_path / "sweep" / "run-1", run_id="abc")
    assert logger._wandb_init["name"] == "run-1" and logger._wandb_init["group"] == "sweep"
    assert logger.version == "abc"


class DeadRun:
    """A W&B run whose network fails: every call raises, and is counted."""

    id = "abc"

    def __init__(self) -> None:
        self.calls = 0

    def _fail(self, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        raise ConnectionResetError("broken\npipe")

    log = log_artifact = _fail

    @property
    def config(self) -> Any:
        return self._fail()

    summary = config


def test_dead_network_does_not_reach_the_training(tmp_path: Path) -> None:
    class Step(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            loss = self.layer(batch[0]).square().mean()
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            self.log("val/accuracy", 0.5)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    logger, dead = WandbRun(tmp_path / "runs" / "a"), DeadRun()
    logger._experiment = dead
    record = RunRecord(tmp_path, "fit", {"data": {"batch_size": 1}}, "data: {batch_size: 1}\n")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        log_every_n_steps=1,
        logger=logger,
        callbacks=[record],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(TensorDataset(torch.ones(4, 1)))
    with pytest.warns(UserWarning, match="failed .ConnectionResetError: broken pipe.: left alone"):
        trainer.fit(Step(), loader, loader)
    assert trainer.global_step == 8
    assert dead.calls == MAX_FAILURES  # then it is left alone, so that slow failures cannot add up
    assert json.loads((tmp_path / "summary.json").read_text())["best"] == {"val/accuracy": 0.5}


def test_one_failure_is_forgiven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger, dead = WandbRun(tmp_path), DeadRun()
    logger._experiment = dead
    for _ in range(2 * MAX_FAILURES):
        with pytest.warns(UserWarning, match="training goes on"):
            logger.log_metrics({"train/loss": 0.5}, 1)
        monkeypatch.setattr(dead, "log", lambda row: None, raising=False)
        logger.log_metrics({"train/loss": 0.5}, 1)
        monkeypatch.undo()
    assert logger.failures == 0


def test_pictures_and_faces_that_cannot_be_logged(tmp_path: Path) -> None:
    logger = WandbRun(tmp_path)
    logger._experiment = DeadRun()
    with pytest.warns(UserWarning, match="log_image failed"):
        logger.log_image("val/confusion", [str(tmp_path / "nowhere.png")])
    with pytest.warns(UserWarning, match="log_faces failed"):
        logger.log_faces("synthesis/faces", [torch.zeros(3, 8, 8, dtype=torch.uint8)], {"intended": ["happy"]})
    with pytest.warns(UserWarning, match="log_artifact failed"):
        logger.log_artifact("config", "config", [tmp_path / "nowhere.yaml"])
    logger.summarise({"best/val/accuracy": 1.0})  # left alone by now: not even tried
    assert logger.failures == MAX_FAILURES


def test_finish_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = []

    def finish(exit_code: int) -> None:
        codes.append(exit_code)
        raise OSError("no route")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=object(), finish=finish))
    with pytest.warns(UserWarning, match="no route"):
        finish_wandb(143)
    assert codes == [143]  # W&B shows the run as one that did not end by itself


def test_folder_that_cannot_be_written_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    modes = []

    def init(**settings: Any) -> Any:
        modes.append(settings["mode"])
        if settings["mode"] != "disabled":
            raise OSError("disk full")
        return SimpleNamespace(id="none")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.warns(UserWarning, match="cannot write to"):
        assert WandbRun(tmp_path).experiment.id == "none"
    assert modes == ["offline", "disabled"]


def test_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_RUN_GROUP", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    names = ["data/drawn", "classifier/tiny"]
    assert choose_group(tmp_path / "runs" / "a", names) == "data/drawn + classifier/tiny"
    assert choose_group(tmp_path / "runs" / "a") == "runs"
    assert choose_group(tmp_path / "runs" / "ratio-20" / "a", names) == "ratio-20"
    monkeypatch.setenv("WANDB_SWEEP_ID", "x1")
    assert choose_group(tmp_path / "runs" / "ratio-20" / "a", names) == "sweep-x1"
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    assert choose_group(tmp_path / "runs" / "a", names) == "mine"
    assert WandbRun(tmp_path / "a", options=WandbOptions(group="asked"))._wandb_init["group"] == "asked"


def test_tags_and_job_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_TAGS", "paper, draft")
    config = {
        "model": {
            "class_path": "m.ExpressionClassifier",
            "init_args": {"backbone": "resnet18", "label_space": "basic7"},
        },
        "data": {"synthetic_ratio": 0.5, "reader": {"class_path": "r.DrawnReader"}, "augmentation": {"enabled": True}},
        "synthesis": {"enabled": True},
        "guidance": {"enabled": False},
    }
    logger = WandbRun(tmp_path, task="test", config=config, options=WandbOptions(tags=["mine"], name="a name"))
    tags = {"ExpressionClassifier", "DrawnReader", "resnet18", "basic7", "mixed", "synthesis", "mine", "paper", "draft"}
    assert set(logger._wandb_init["tags"]) == tags
    assert logger._wandb_init["job_type"] == "test" and logger._wandb_init["name"] == "a name"


@pytest.mark.parametrize("wrong", [{"tags": [""]}, {"tags": ["x" * 65]}, {"faces": -1}])
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"wandb\.{next(iter(wrong))}: found"):
        WandbOptions(**wrong)


def test_what_an_offline_run_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    (tmp_path / "samples").mkdir()
    logger = WandbRun(tmp_path, config={"model": {"class_path": "m.Tiny"}})
    Image.new("RGB", (4, 4)).save(tmp_path / "samples" / "grid.png")
    try:
        logger.log_hyperparams({"data": {"synthetic_ratio": 0.5}})
        logger.log_metrics({"val/accuracy": 0.5}, 3)
        logger.summarise({"best/val/accuracy": 0.75})
        faces = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2
        logger.log_faces("synthesis/faces", faces, {"intended": ["happy", "sad"], "kept": [True, False]})
        logger.log_new_pictures(tmp_path / "samples")
        logger.log_artifact("split manifest", "dataset", contents={"splits.json": {"train": {"rows": 3}}})
        run = logger.experiment
        assert logger.failures == 0
        assert run.config["data.synthetic_ratio"] == 0.5
        assert run.summary["best/val/accuracy"] == 0.75 and run.summary["val/accuracy"] == 0.5
        assert run.job_type == "fit" and run.tags == ("Tiny",)
        assert run.settings.x_disable_stats is False  # W&B's system metrics
    finally:
        wandb.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    media = {path.name.split("_")[0] for path in (folder / "files" / "media").rglob("*.*")}
    assert {"faces", "grid"} <= media, media
    words = (b"data.synthetic_ratio", b"split-manifest", b"best/val/accuracy")
    deadline = time.monotonic() + 60  # W&B's own process flushes its file a little later
    while not all(word in next(folder.glob("*.wandb")).read_bytes() for word in words):
        assert time.monotonic() < deadline
        time.sleep(0.05)
