"""How a run ends, and what it says of it: exit code, record, what the next start makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

import train
from synfer.runs.run_end import RunEnd, interrupted_by, is_complete, outcome_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_run: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    train.main(["fit", *tiny_run, "--trainer.logger=false", f"--run_dir={folder}"])
    return folder


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def error_line(args: list[str], capfd: pytest.CaptureFixture) -> tuple[int, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        train.main(args)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1, lines
    return int(caught.value.code or 0), lines[0]


class SpoilLoss(Callback):
    """Has the weights grow beyond all numbers at a step.

    Args:
        step: which.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step - 1:
            with torch.no_grad():
                next(p for p in pl_module.parameters() if p.requires_grad).fill_(torch.nan)


@pytest.mark.parametrize("step", [2, 4])
def test_a_loss_that_is_no_number_fails_the_run_and_keeps_the_last_good_checkpoint(
    step: int, tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    spoil = json.dumps({"class_path": "tests.test_run_ends.SpoilLoss", "init_args": {"step": step}})
    more = [f"--trainer.callbacks+={spoil}", "--checkpoint.every_n_train_steps=1", "--trainer.max_epochs=3"]
    code, line = error_line(["fit", *tiny_run, "--trainer.logger=false", *more, f"--run_dir={tmp_path}"], capfd)
    assert code == 1 and f"the loss of step {step} is NaN or infinite" in line
    record = summary(tmp_path)
    assert record["status"] == "failed" and not record["complete"] and record["exit_code"] == 1
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == step - 1
    assert record["continue_with"].endswith("last.ckpt")
    assert all(bool(t.isfinite().all()) for t in last["state_dict"].values())


def test_saved_settings_start_afresh_also_those_of_a_continued_run(
    finished: Path, tiny_run: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "continued"
    shutil.copytree(finished, folder)
    more = [f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=2", "--trainer.logger=false"]
    train.main(["fit", *tiny_run, *more, f"--run_dir={folder}"])
    assert yaml.safe_load((folder / "config.yaml").read_text())["ckpt_path"] is None
    again = tmp_path / "again"
    train.main(["fit", f"--config={folder / 'config.yaml'}", "--seed_everything=2", f"--run_dir={again}"])
    assert summary(again)["seed"] == 2 and summary(again)["steps"] == 4
    assert [attempt["from_step"] for attempt in summary(again)["attempts"]] == [0]
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (folder, again)]
    assert any(not torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_weights_that_nothing_has_trained_are_not_evaluated(
    command: str, finished: Path, tiny_run: list[str], capfd: pytest.CaptureFixture
) -> None:
    before = (finished / "summary.json").read_bytes()
    code, line = error_line([command, *tiny_run, f"--run_dir={finished}"], capfd)
    assert code == 2 and f"{command}: found no --ckpt_path" in line
    assert f"--ckpt_path {finished / 'checkpoints' / 'last.ckpt'}" in line
    assert (finished / "summary.json").read_bytes() == before


def test_a_run_is_not_continued_with_another_seed(
    finished: Path, tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    more = [f"--ckpt_path={finished / 'checkpoints' / 'last.ckpt'}", "--seed_everything=3", f"--run_dir={tmp_path}"]
    code, line = error_line(["fit", *tiny_run, *more], capfd)
    assert code == 2 and "seed_everything=3: found a checkpoint of a run with seed 1" in line
    assert not list(tmp_path.iterdir())


def test_fewer_epochs_than_are_done_are_refused_before_anything_is_written(
    finished: Path, tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    kept = {path: path.read_bytes() for path in (folder / "config.yaml", folder / "summary.json")}
    more = [f"--ckpt_path={folder}", "--trainer.max_epochs=0", f"--run_dir={folder}"]
    code, line = error_line(["fit", *tiny_run, *more], capfd)
    assert code == 2 and "trainer.max_epochs=0: found a checkpoint of a run with" in line
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_whoever_starts_a_run_that_is_cut_short_is_told_how_it_goes_on(
    tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    stop = json.dumps({"class_path": "tests.fixtures.stop_at.StopAt", "init_args": {"step": 1, "how": "SIGTERM"}})
    with pytest.raises(SystemExit):
        train.main(
            ["fit", *tiny_run, f"--trainer.callbacks+={stop}", "--trainer.logger=false", f"--run_dir={tmp_path}"]
        )
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert f"interrupted (SIGTERM) after step 1; --ckpt_path {last} goes on" in capfd.readouterr().err


def test_a_run_is_not_continued_into_the_folder_of_another(
    finished: Path, tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other"
    train.main(["fit", *tiny_run, "--trainer.logger=false", f"--run_dir={other}"])
    kept = (other / "summary.json").read_bytes()
    checkpoint = f"--ckpt_path={finished / 'checkpoints' / 'last.ckpt'}"
    code, line = error_line(["fit", *tiny_run, checkpoint, f"--run_dir={other}"], capfd)
    assert code == 2 and "found another run there than that of the checkpoint" in line
    assert (other / "summary.json").read_bytes() == kept
    copy = tmp_path / "copy"  # the run's own folder, moved elsewhere, is its own
    shutil.copytree(finished, copy)
    train.main(["fit", *tiny_run, "--trainer.logger=false", checkpoint, "--trainer.max_epochs=2", f"--run_dir={copy}"])
    assert summary(copy)["run_id"] == summary(finished)["run_id"] and summary(copy)["steps"] == 4


def test_as_many_ranks_train_as_were_asked_for(
    tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task of SLURM and two devices: Lightning would train on one of them without a word."""
    for name, value in {"NTASKS": 1, "JOB_ID": 7, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NODELIST": "here"}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_JOB_NAME", "fit")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    more = ["--trainer.devices=2", "--trainer.strategy=ddp", f"--run_dir={tmp_path}"]
    code, line = error_line(["fit", *tiny_run, *more], capfd)
    assert code == 2 and "2 × 1 = 2 ranks are asked for, found 1 started" in line


def test_a_full_disk_is_one_line_and_the_record_says_failed(
    tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callbacks.recording import atomic_checkpoint_io
    from synfer.runs import run_format

    def full(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(run_format, "write_json", full)  # and the record cannot be written either
        raise OSError(28, "No space left on device", str(tmp_path / "checkpoints" / "last.ckpt"))

    monkeypatch.setattr(atomic_checkpoint_io, "atomic_write", full)
    code, line = error_line(["fit", *tiny_run, "--trainer.logger=false", f"--run_dir={tmp_path}"], capfd)
    assert code == 1 and "last.ckpt" in line
    assert summary(tmp_path)["status"] == "failed"


def test_ends_in_words_and_numbers() -> None:
    assert RunEnd("finished", "epochs").as_record("x.ckpt") == {
        "status": "finished",
        "reason": "epochs",
        "exit_code": 0,
        "complete": True,
    }
    assert RunEnd("stopped", "time").as_record("x.ckpt")["continue_with"] == "--ckpt_path x.ckpt"
    assert interrupted_by(15) == RunEnd("interrupted", "SIGTERM", 143)
    assert is_complete({"status": "finished"}) and not is_complete({"status": "running"})  # older summaries
    assert outcome_of({"status": "stopped", "reason": "patience", "complete": True}) == "finished"
    assert outcome_of({"status": "stopped", "reason": "time", "complete": False}) == "stopped (time)"


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    from callbacks.recording.atomic_checkpoint_io import AtomicCheckpointIO

    class Torn:
        def __reduce__(self) -> Any:
            raise OSError(28, "No space left on device")

    io, path = AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    io.save_checkpoint({"step": torch.tensor(1)}, path)
    with pytest.raises(OSError, match="No space left"):
        io.save_checkpoint({"step": torch.tensor(2), "more": Torn()}, path)
    assert int(torch.load(path, weights_only=True)["step"]) == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["last.ckpt"]
