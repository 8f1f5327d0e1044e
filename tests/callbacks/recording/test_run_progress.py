"""The lines of whole fits: totals, metrics of the right epoch, resumed and bounded runs."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from callbacks.recording import progress_display
from callbacks.recording.progress_display import LogDisplay
from callbacks.recording.run_progress import RunProgress, display_of, face_count


class Line(LightningModule):
    """Its training loss of epoch e is e + 1, logged when the epoch is over; its accuracy is e / 10."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.frozen = torch.nn.Parameter(torch.zeros(1998), requires_grad=False)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self.weight.sum()
        self.log("train/loss_step", loss.detach(), prog_bar=True, on_step=True, on_epoch=False)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", float(self.current_epoch + 1))

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val/accuracy", self.current_epoch / 10, prog_bar=True)
        self.log("val/recall/fear", 0.5)

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log_dict({"test/ece": 0.25, "test/accuracy": 0.123456, "test/recall/fear": 0.5})

    def predict_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return batch[0]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Counted(LightningDataModule):
    """Four batches of four samples, counted as ExpressionDataModule does."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {"real": 0, "synthetic": 0}

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(16, 1)), batch_size=4)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(2, 1)))

    test_dataloader = predict_dataloader = val_dataloader

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.training:  # type: ignore[union-attr]
            self.counts["real"] += 4
        return batch


def run(folder: Path, task: str = "fit", ckpt_path: str | None = None, **settings: Any) -> list[str]:
    """Returns the lines of one run in a log."""
    file = io.StringIO()
    progress = RunProgress(display=LogDisplay(file))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **{"enable_checkpointing": False, **settings, "callbacks": [progress, *settings.get("callbacks", [])]},
    )
    if task == "predict":
        trainer.predict(Line(), datamodule=Counted(), return_predictions=False)
    elif task == "test":
        trainer.test(Line(), datamodule=Counted(), verbose=False)
    else:
        trainer.fit(Line(), datamodule=Counted(), ckpt_path=ckpt_path)
    return file.getvalue().splitlines()


def test_a_line_for_each_epoch(tmp_path: Path) -> None:
    model, first, second = run(tmp_path, max_epochs=2)
    assert model == "model: Line, 2 K parameters, 2 of them trained, on cpu in 32-true"
    pattern = (
        r"epoch {0}/2 · step {1}/8 · 0:0\d used, 0:0\d left · train/loss {0}\.000 · val/accuracy {2} · [\d.]+ images/s"
    )
    assert re.fullmatch(pattern.format(1, 4, "0"), first), first
    assert re.fullmatch(pattern.format(2, 8, r"0\.1000"), second), second
    assert "0:00 left" in second


def test_steps_bound_the_epochs(tmp_path: Path) -> None:
    lines = run(tmp_path, max_steps=6, max_epochs=-1)[1:]
    assert [line.split(" · ")[:2] for line in lines] == [["epoch 1/2", "step 4/6"], ["epoch 2/2", "step 6/6"]]


def test_a_run_without_an_end_has_no_total_but_a_time_where_that_is_bounded(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    lines = run(tmp_path, max_epochs=-1, max_time={"hours": 3}, callbacks=[Stop()])
    assert re.match(r"epoch 1 · step 4 · 0:0\d used, (2:59:\d\d|3:00:00) left · ", lines[1]), lines[1]
    lines = run(tmp_path, max_epochs=-1, callbacks=[Stop()])
    assert re.match(r"epoch 2 · step 8 · 0:0\d used · train/loss", lines[2]), lines[2]


def test_validations_inside_an_epoch_have_lines_of_their_own(tmp_path: Path) -> None:
    lines = run(tmp_path, max_epochs=1, val_check_interval=2)
    assert [line.split(" · ")[1] for line in lines[1:]] == ["step 2/4", "step 4/4"]
    assert all("val/accuracy" in line for line in lines[1:])


def test_an_epoch_without_validation_repeats_no_old_metrics(tmp_path: Path) -> None:
    lines = run(tmp_path, max_epochs=2, check_val_every_n_epoch=2)
    assert ["val/accuracy" in line for line in lines[1:]] == [False, True]


def test_a_run_that_goes_on_counts_from_where_it_was(tmp_path: Path) -> None:
    run(tmp_path, max_epochs=1, enable_checkpointing=True)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    lines = run(tmp_path, max_epochs=3, ckpt_path=str(checkpoint))
    assert [line.split(" · ")[:2] for line in lines[1:]] == [["epoch 2/3", "step 8/12"], ["epoch 3/3", "step 12/12"]]


def test_a_test_prints_its_metrics_sorted_and_rounded(tmp_path: Path) -> None:
    lines = run(tmp_path, "test")
    assert lines[1].startswith("test: 2 batches in 0:00")
    assert lines[2:] == [
        "  test/accuracy     0.1235",
        "  test/ece          0.2500",
        "  test/recall/fear  0.5000",
    ]


def test_a_prediction_counts(tmp_path: Path) -> None:
    assert run(tmp_path, "predict")[1].startswith("prediction: 2 batches in 0:00")


def test_an_error_leaves_no_line_of_something_finished(tmp_path: Path) -> None:
    class Fail(Callback):
        def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
            raise ValueError("broken")

    file = io.StringIO()
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
        callbacks=[RunProgress(display=LogDisplay(file)), Fail()],
    )  # fmt: skip
    with pytest.raises(ValueError, match="broken"):
        trainer.test(Line(), datamodule=Counted(), verbose=False)
    assert len(file.getvalue().splitlines()) == 1  # the model's


def test_steps_make_no_figures_that_nobody_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(RunProgress, "_figures", lambda self, trainer: made.append(1) or "")
    run(tmp_path, max_epochs=5)
    assert not made


def test_faces_are_counted_where_a_run_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made:
        kept = torch.ones(7, dtype=torch.bool)

    file = io.StringIO()
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[RunProgress(display=LogDisplay(file))],
    )  # fmt: skip
    monkeypatch.setattr(progress_display, "FIRST_LINE_S", -1.0)
    with face_count(trainer, "faces of the test", 14) as count:
        count.on_faces(Made())  # type: ignore[arg-type]
        count.on_faces(Made())  # type: ignore[arg-type]
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("faces of the test: 7/14 faces, ")
    assert lines[-1].startswith("faces of the test: 14 faces in 0:00")
    assert type(display_of(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))).__name__ == "Display"
