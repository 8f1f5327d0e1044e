"""The entry point: run folder, precedence, continuing, and errors of one line."""

from __future__ import annotations

import csv
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from experiments.command_line.cli import SWITCHED_GROUPS
from synfer.foundation.bfloat16 import warn_of_slow_bfloat16
from tests.fixtures.processes import run_to_end

PROJECT = Path(train.__file__).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_run: list[str]) -> train.SynferCLI:
    """A finished fit with an offline W&B run in ``<folder>/first``."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        return train.main(["fit", *tiny_run, f"--run_dir={folder}"])


def summary_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def one_line_exit(capfd: pytest.CaptureFixture, args: list[str]) -> tuple[int, str]:
    """Runs a command that must fail; returns its exit code and its only line on stderr."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        train.main(args)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    return int(caught.value.code or 0), lines[0]


def test_run_folder_holds_what_the_contract_says(finished: train.SynferCLI) -> None:
    folder = finished.run_dir
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "metrics.csv", "summary.json", "checkpoints", "samples", "wandb"} <= names
    summary = summary_of(folder)
    assert summary["task"] == "fit" and summary["status"] == "finished"
    assert summary["seed"] == 1 and summary["world_size"] == 1
    assert summary["counts"] == {"real": 112, "synthetic": 0, "discarded": 0}
    assert summary["wall_s"] > 0 and summary["cpu_s"] > 0
    assert 0 <= summary["metrics"]["val/accuracy"] <= 1
    assert summary["versions"]["torch"] == str(torch.__version__).partition("+")[0]
    assert summary["config"]["data"]["batch_size"] == 56
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert any(row["val/accuracy"] for row in rows) and any(row["train/loss"] for row in rows)
    assert any(row["train/gradient_norm"] for row in rows) and any(row["throughput/steps_per_s"] for row in rows)
    assert {row["data/effective_ratio"] for row in rows} == {"", "0.0"}
    assert summary["best"]["val/accuracy"] == summary["metrics"]["val/accuracy"]
    assert (folder / "samples" / "reliability_val.png").is_file()


def test_wandb_run_of_a_fit(finished: train.SynferCLI) -> None:
    (folder,) = (finished.run_dir / "wandb").glob("offline-run-*")
    deadline = time.monotonic() + 60  # W&B's own process flushes its file a little later
    words = [
        b"data.synthetic_ratio",
        b"model.backbone",
        b"best/val/accuracy",
        b"split-manifest",
        b"ExpressionClassifier",
    ]
    while missing := [word for word in words if word not in next(folder.glob("*.wandb")).read_bytes()]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.05)
    pictures = {path.name.rsplit("_", 2)[0] for path in (folder / "files" / "media" / "images").rglob("*.png")}
    assert pictures == {"confusion", "reliability"}  # each once


def test_checkpoint_loads_with_weights_only(finished: train.SynferCLI) -> None:
    state = torch.load(finished.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert state["callbacks"]["RunRecord"]["wandb_id"] == summary_of(finished.run_dir)["wandb_id"]


class Evil:
    """What a pickle could do: touch a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_executed(tiny_run: list[str], tmp_path: Path, capsys: Any) -> None:
    torch.save({"state_dict": {}, "evil": Evil(tmp_path / "touched")}, tmp_path / "evil.ckpt")
    for command in ("fit", "test"):
        with pytest.raises(SystemExit) as stopped:
            train.main([command, *tiny_run, f"--ckpt_path={tmp_path / 'evil.ckpt'}", f"--run_dir={tmp_path / 'run'}"])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and "evil.ckpt cannot be read as a checkpoint" in error
    assert not (tmp_path / "touched").exists()


def test_saved_config_starts_a_new_run(finished: train.SynferCLI) -> None:
    again = train.parse(["fit", f"--config={finished.run_dir / 'config.yaml'}"])
    assert again.run_dir is None
    assert again.data.as_dict() == finished.config.fit.data.as_dict()
    assert again.model.as_dict() == finished.config.fit.model.as_dict()


def test_continued_run_keeps_its_wandb_id_and_its_rows(
    finished: train.SynferCLI, tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    first = finished.run_dir
    folder = tmp_path / "continued"
    folder.mkdir()
    (folder / "metrics.csv").write_text((first / "metrics.csv").read_text())
    checkpoint = first / "checkpoints" / "last.ckpt"
    cli = train.main(["fit", *tiny_run, "--trainer.max_epochs=2", f"--run_dir={folder}", f"--ckpt_path={checkpoint}"])
    assert cli.trainer.global_step == 4
    assert summary_of(folder)["wandb_id"] == summary_of(first)["wandb_id"]
    assert summary_of(folder)["counts"]["real"] == 224
    validated = [row["epoch"] for row in csv.DictReader((folder / "metrics.csv").open()) if row["val/accuracy"]]
    assert [float(epoch) for epoch in validated] == [0.0, 1.0]


def test_checkpoint_never_overrides_the_command_line(
    finished: train.SynferCLI, tiny_run: list[str], tmp_path: Path
) -> None:
    checkpoint = finished.run_dir / "checkpoints" / "last.ckpt"
    args = ["--model.init_args.label_smoothing=0.2", f"--run_dir={tmp_path}", f"--ckpt_path={checkpoint}"]
    cli = train.main(["test", *tiny_run, *args])
    assert cli.model.hparams["label_smoothing"] == 0.2
    assert torch.load(checkpoint, weights_only=True)["hyper_parameters"]["label_smoothing"] != 0.2


def test_test_adds_its_metrics_to_the_summary_of_the_fit(finished: train.SynferCLI, tiny_run: list[str]) -> None:
    folder = finished.run_dir
    before = summary_of(folder)
    train.main(["test", *tiny_run, f"--run_dir={folder}", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"])
    after = summary_of(folder)
    assert after["task"] == "fit" and after["counts"] == before["counts"]
    assert after["test"]["status"] == "finished"
    assert "test/accuracy" in after["metrics"]
    assert after["metrics"]["val/accuracy"] == before["metrics"]["val/accuracy"]
    assert (folder / "config.test.yaml").is_file()


@pytest.mark.filterwarnings("default:.*without bfloat16 units")
def test_bfloat16_on_a_processor_without_it_is_said(
    tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    warn_of_slow_bfloat16.cache_clear()
    with pytest.warns(UserWarning, match=r"trainer.precision: found bf16-mixed on .* expected 32-true"):
        train.main(
            ["fit", *tiny_run, "--trainer.precision=bf16-mixed", "--trainer.logger=false", f"--run_dir={tmp_path}/b"]
        )
    warn_of_slow_bfloat16.cache_clear()


def test_default_run_folder(tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli = train.main(["fit", *tiny_run, "--trainer.fast_dev_run=true"])
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder == tmp_path / cli.run_dir
    assert summary_of(folder)["steps"] == 1


def test_same_seed_same_weights(tiny_run: list[str], tmp_path: Path) -> None:
    args = ["fit", *tiny_run, "--trainer.logger=false", "--trainer.max_steps=1"]
    weights = [train.main([*args, f"--run_dir={tmp_path / name}"]).model.state_dict() for name in "ab"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_precedence(tmp_path: Path, tiny_run: list[str]) -> None:
    for name, size in (("earlier", 3), ("later", 4)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"data": {"batch_size": size, "pool_size": 10 * size}}))
    files = [f"--config={tmp_path / name}.yaml" for name in ("earlier", "later")]
    base = [arg for arg in tiny_run if not arg.startswith("--data.batch_size")]
    config = train.parse(["fit", *base, *files, "--data.batch_size=5"])
    assert (config.data.batch_size, config.data.pool_size) == (5, 40)


def test_defaults(tiny_run: list[str]) -> None:
    config = train.parse(["fit", *tiny_run[:2]])
    assert config.seed_everything == 1
    assert config.trainer.use_distributed_sampler is True
    assert config.trainer.num_sanity_val_steps == 0
    assert config.trainer.log_every_n_steps == 50
    assert config.checkpoint.monitor is None and config.checkpoint.save_last is True
    assert not any(config[group].enabled for group in SWITCHED_GROUPS)


def test_predictions_are_not_kept_in_memory(tiny_run: list[str]) -> None:
    assert train.parse(["predict", *tiny_run[:2]]).return_predictions is False


def test_groups_that_are_off_are_not_in_the_trainer(finished: train.SynferCLI) -> None:
    from callbacks.synthesis.synthesis_callback import SynthesisCallback

    names = [type(callback).__name__ for callback in finished.trainer.callbacks]
    assert not any(isinstance(callback, SynthesisCallback) for callback in finished.trainer.callbacks)
    assert "OnlineSynthesis" not in names and "PseudoLabeller" not in names
    assert {"RunRecord", "RunCheckpoint", "LearningRateMonitor"} <= set(names)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--data.batchsize=3"], "data.batchsize"),
        (["--data.batch_siz=3"], "data.batch_siz"),  # no abbreviations
        (["--trainer.max_epoch=3"], "trainer.max_epoch"),
        (["--guidance.step_sise=3"], "guidance.step_sise"),
        (["--model.init_args.learning_rat=3"], "learning_rat"),
        (["--data.batch_size=many"], "data.batch_size"),
        (["--model.init_args.learning_rate=fast"], "learning_rate"),
        (["--data.synthetic_ratio=1.5"], "synthetic_ratio"),
        (
            ["--data.reader.class_path=datamodules.readers.FER2013Reader", "--data.reader.init_args.root=nowhere"],
            "nowhere",
        ),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
        (["--ckpt_path=nowhere.ckpt"], "nowhere.ckpt"),
        (
            [f"--ckpt_path={Path(train.__file__).parent / 'demo/weights/drawn_generator'}"],
            "is a folder of save_trained",
        ),
        (["--model=NoSuchModel"], "NoSuchModel"),
        (["--model.init_args.backbone=no_such_net"], "no_such_net"),
        (["--trainer.accelerator=abacus"], "abacus"),
        (["--layout.enabled=true"], "layout.enabled=true, but no face is made"),
        (["--synthesis.sampling.num_steps=0"], "sampling.num_steps: found 0"),
        (["--synthesis.sampling.au_edits={AU99: 0.5}"], "unknown action unit 'AU99'"),
        (["--synthesis.sampling.guidance_interval=[0.5,0.2]"], "guidance_interval"),
        (
            ["--synthesis.sampling.num_steps=3", "--synthesis.settings={strength: 1}"],
            "found both, expected one of them",
        ),
        (["--synthesis.plan=most"], "synthesis.plan"),
        (["--data.synthesis_plan=feedback"], "data.synthesis_plan"),
        (["--data.class_sampling.kind=often"], "data.class_sampling.kind"),
        (["--data.imbalance=0.5"], "data.imbalance"),
        (["--model.init_args.loss.kind=hinge"], "loss.kind"),
        (["--guidance.targets={happy: {happy: 0.4}}"], "guidance.targets 'happy'"),
        (["--wandb.faces=-1"], "wandb.faces: found -1"),
        (["--wandb.log_checkpoint=true"], "wandb.log_checkpoint"),
    ],
)
def test_wrong_configuration_is_one_line_and_exit_code_2(
    wrong: list[str], named: str, tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    code, line = one_line_exit(capfd, ["fit", *tiny_run, f"--run_dir={tmp_path / 'run'}", *wrong])
    assert code == 2
    assert named in line
    assert not (tmp_path / "run").exists()


def test_wrong_key_in_a_file(tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    (tmp_path / "wrong.yaml").write_text("data: {batchsize: 3}\n")
    code, line = one_line_exit(capfd, ["fit", *tiny_run, f"--config={tmp_path / 'wrong.yaml'}"])
    assert code == 2 and "data.batchsize" in line


def test_second_run_does_not_go_into_the_folder_of_the_first(
    finished: train.SynferCLI, tiny_run: list[str], capfd: pytest.CaptureFixture
) -> None:
    before = summary_of(finished.run_dir)
    code, line = one_line_exit(capfd, ["fit", *tiny_run, f"--run_dir={finished.run_dir}"])
    assert code == 2 and "--ckpt_path" in line
    assert summary_of(finished.run_dir) == before


def test_error_in_the_run_is_one_line_and_exit_code_1(
    tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    args = ["fit", *tiny_run, f"--run_dir={tmp_path}", "--model.init_args.label_space=ferplus8"]
    code, line = one_line_exit(capfd, args)
    assert code == 1 and "label_space" in line
    assert summary_of(tmp_path)["status"] == "failed"
    assert "label_space" in summary_of(tmp_path)["error"]


def test_a_module_that_cannot_be_built_says_why_and_not_what_types_there_are(
    tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    model = [f"--config={PROJECT / 'configs/generator/tiny.yaml'}", "--model.sampling.au_edits={AU99: 0.5}"]
    code, line = one_line_exit(capfd, ["fit", *tiny_run, *model, f"--run_dir={tmp_path / 'run'}"])
    assert code == 2 and "unknown action unit 'AU99'" in line
    assert "Union" not in line and "class" not in line and "Given value" not in line


def test_debug_lets_the_error_through(tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNFER_DEBUG", "1")
    with pytest.raises(ValueError, match="label_space"):
        train.main(["fit", *tiny_run, f"--run_dir={tmp_path}", "--model.init_args.label_space=ferplus8"])


def test_several_devices_need_a_process_of_their_own(
    tiny_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    several = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    code, line = one_line_exit(capfd, ["fit", *tiny_run, f"--run_dir={tmp_path}", *several])
    assert code == 2 and "trainer.devices" in line


def cpu_seconds_of_children() -> float:
    """Of all processes that have ended: what they would have taken alone on an idle core, unless they waited."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.slow
def test_a_misspelt_key_is_reported_within_fifteen_seconds(tiny_run: list[str], tmp_path: Path) -> None:
    before = cpu_seconds_of_children()  # wall time says how many other tests run at the moment
    command = [sys.executable, str(PROJECT / "train.py"), "fit", *tiny_run, "--data.batchsize=3"]
    done = run_to_end(command, cwd=tmp_path)
    assert cpu_seconds_of_children() - before < 15
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: unrecognized arguments: --data.batchsize=3, did you mean data.batch_size?"
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_share_one_run_folder(tiny_run: list[str], tmp_path: Path) -> None:
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=14"]
    command = [sys.executable, str(PROJECT / "train.py"), "fit", *tiny_run, *ranks]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    done = run_to_end(command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    summary = summary_of(folder)
    assert summary["status"] == "finished" and summary["world_size"] == 2
    assert summary["counts"]["real"] == 112 and summary["counts_of"] == "all ranks"
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1  # one W&B run, whatever the number of ranks
