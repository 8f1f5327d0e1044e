"""A run that was stopped at any step and goes on is the same run, bit for bit, for every shipped module."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from synfer.faces.expressions import LABEL_SPACES
from tests.fixtures.outside_models import save_clip
from tests.fixtures.processes import run_to_end
from tests.fixtures.tiny_generator import (
    TINY_AUTOENCODER,
    TINY_TEXT,
    TINY_UNET,
    save_base,
    save_checkpoint,
    tiny_classifier,
    tiny_generator,
)

PROJECT = Path(train.__file__).parent
BASIC7 = LABEL_SPACES["basic7"]
STEPS = 5
"""Steps of an epoch: 40 faces in batches of eight."""


def classifier(folder: Path) -> dict[str, Any]:
    return {
        "class_path": "lightning_modules.classifier.ExpressionClassifier",
        "init_args": {
            "label_space": "basic7",
            "backbone": "resnet10t",
            "backbone_kwargs": {"stem_width": 8, "channels": [8, 8, 16, 16]},
            "image_size": 16,
            "drop_rate": 0.3,
            "optimizer": "adamw",
            "learning_rate": 0.01,
            "ema_decay": 0.9,
        },
    }


def generator(folder: Path) -> dict[str, Any]:
    return {
        "class_path": "lightning_modules.generator.ExpressionGenerator",
        "init_args": {
            "label_space": "basic7",
            "image_size": 16,
            "codec": "autoencoder_kl",
            "codec_config": TINY_AUTOENCODER,
            "autoencoder_steps": 4,
            "unet": TINY_UNET,
            "text_encoder": TINY_TEXT,
            "bf16_sampling": False,
            "ema_decay": 0.9,
            "grid_samples": 0,
        },
    }


def lora(folder: Path) -> dict[str, Any]:
    return {
        "class_path": "lightning_modules.generator.ExpressionGenerator",
        "init_args": {
            "label_space": "basic7",
            "image_size": 16,
            "base": str(save_base(folder / "base")),
            "trained": "lora",
            "distribution_matching": 0.19,
            "cache": {"path": str(folder / "cache")},
            "execution": {"bf16_sampling": False},
            "ema_decay": 0.9,
            "grid_samples": 0,
        },
    }


def annotator(folder: Path) -> dict[str, Any]:
    made = save_checkpoint(tiny_generator(label_space="basic7"), folder / "generator.ckpt")
    return {
        "class_path": "lightning_modules.annotator.LabelAnnotator",
        "init_args": {
            "generator": str(made),
            "label_space": "basic7",
            "feature_modules": ["up_blocks.0"],
            "dropout": 0.1,
            "learning_rate": 0.01,
            "ema_decay": 0.9,
        },
    }


def au_estimator(folder: Path) -> dict[str, Any]:
    return {
        "class_path": "lightning_modules.action_unit_estimator.ActionUnitEstimator",
        "init_args": {"backbone": "resnet10t", "backbone_kwargs": {"stem_width": 8}, "image_size": 16},
    }


def augmenter(folder: Path) -> dict[str, Any]:
    return {
        "class_path": "lightning_modules.augmenter.SemanticAugmenter",
        "init_args": {
            "label_space": "basic7",
            "image_size": 16,
            "network": {"widths": [8, 8], "latent_size": 4, "channels": 3},
            "loss": {"r1_every": 3},
            "learning_rate": 0.01,
            "ema_decay": 0.9,
        },
    }


def pretraining(folder: Path) -> dict[str, Any]:
    return {
        "class_path": "lightning_modules.pretraining.FacePretraining",
        "init_args": {
            "method": "moco_v3",
            "backbone": "resnet10t",
            "backbone_kwargs": {"stem_width": 8, "channels": [8, 8, 16, 16]},
            "image_size": 16,
            "head": {"hidden": 16, "out": 8},
            "learning_rate": 0.01,
        },
    }


def sharpness_aware(folder: Path) -> dict[str, Any]:
    made = classifier(folder)
    return {**made, "init_args": {**made["init_args"], "optimizer": "sgd", "sam_rho": 0.05}}


def zero_shot(folder: Path) -> dict[str, Any]:
    return {
        "class_path": "lightning_modules.zero_shot.ZeroShot",
        "init_args": {"clip": str(save_clip(folder / "clip")), "target": "captions", "learning_rate": 0.01},
    }


def mixed(folder: Path) -> dict[str, Any]:
    save_checkpoint(tiny_generator(label_space="basic7"), folder / "generator.ckpt")
    save_checkpoint(tiny_classifier(BASIC7), folder / "voter.ckpt")
    return classifier(folder)


MODULES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "classifier": classifier,
    "generator": generator,
    "lora": lora,
    "augmenter": augmenter,
    "annotator": annotator,
    "au_estimator": au_estimator,
    "pretraining": pretraining,
    "sharpness_aware": sharpness_aware,
    "zero_shot": zero_shot,
    "mixed": mixed,
}


def config(folder: Path, module: str, **more: Any) -> Path:
    """Writes the configuration of a fit of two and a half epochs and returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    reader = {"count": {"train": 40, "val": 14, "test": 14}, "image_size": 32, "label_space": "basic7"}
    content: dict[str, Any] = {
        "model": MODULES[module](folder),
        "data": {
            "reader": {"class_path": "datamodules.readers.DrawnReader", "init_args": reader},
            "image_size": 16,
            "batch_size": 8,
            "eval_batch_size": 14,
            "augmentation": {"flip": 0.5, "rotation": 10},
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "precision": "32-true",
            "logger": False,
            "max_steps": 2 * STEPS + 3,
            "max_epochs": -1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    if module == "lora":  # views that a cache can hold
        content["data"]["augmentation"]["cached_views"] = 3
    if module == "mixed":  # a ratio of 3.2 faces a batch, a pool that turns over, thresholds that move
        content["data"] |= {"synthetic_ratio": 0.4, "pool_size": 12, "steps_per_epoch": STEPS}
        content["synthesis"] = {"enabled": True, "generator": str(folder / "generator.ckpt"), "batch_size": 6}
        content["synthesis"] |= {"max_reuse": 1.5, "sampling": {"num_steps": 2, "guidance_scale": 1.0}}
        content["pseudo_labels"] = {"enabled": True, "voters": [str(folder / "voter.ckpt")], "adaptive_quantile": 0.3}
    for key, value in more.items():
        content[key] = {**content.get(key, {}), **value}
    path = folder / "given.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def fit(given: Path, folder: Path, *more: str, callbacks: tuple[dict[str, Any], ...] = ()) -> list[str]:
    """Returns the command line of a fit into ``folder/run`` that writes down each step beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"class_path": "tests.fixtures.rank_record.RankRecord", "init_args": {"folder": str(folder)}}
    listed = [f"--trainer.callbacks+={json.dumps(callback)}" for callback in (*callbacks, record)]
    return ["fit", f"--config={given}", *listed, f"--run_dir={folder / 'run'}", *more]


def stop_at(step: int, how: str, rank: int = 0) -> dict[str, Any]:
    return {"class_path": "tests.fixtures.stop_at.StopAt", "init_args": {"step": step, "how": how, "rank": rank}}


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "summary.json").read_text())


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)


def steps(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    return json.loads((folder / f"rank{rank}.json").read_text())["steps"]


def tensors(node: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Returns all tensors in a checkpoint by their place in it."""
    if isinstance(node, torch.Tensor):
        return {name: node}
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    return {place: t for key, child in items for place, t in tensors(child, f"{name}.{key}").items()}


def assert_same_run(resumed: Path, whole: Path, from_step: int, ranks: int = 1) -> None:
    """Compares weights, averages, optimiser, position, and the losses and rows of the steps after the stop."""
    found, expected = last(resumed), last(whole)
    for checkpoint in (found, expected):  # where files lie
        checkpoint["callbacks"] = {k: v for k, v in checkpoint["callbacks"].items() if "RunCheckpoint" not in k}
    assert found["global_step"] == expected["global_step"]
    assert found["ExpressionDataModule"]["position"] == expected["ExpressionDataModule"]["position"]
    ours, theirs = tensors(found), tensors(expected)
    assert set(ours) == set(theirs)
    different = [name for name, tensor in theirs.items() if not torch.equal(tensor, ours[name])]
    assert not different, different[:5]
    for rank in range(ranks):
        assert steps(resumed, rank) == steps(whole, rank)[from_step:]


@pytest.fixture(scope="module", params=list(MODULES))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that nobody has stopped, with a checkpoint of each step, and its configuration."""
    folder = tmp_path_factory.mktemp(request.param)
    given = config(folder, request.param)
    every = ["--checkpoint.every_n_train_steps=1", "--checkpoint.save_top_k=-1"]
    train.main(fit(given, folder / "whole", *every))
    return folder / "whole", given


@pytest.mark.parametrize("step", [2, 5, 12])
def test_killed_after_any_step(whole: tuple[Path, Path], step: int, tmp_path: Path) -> None:
    uninterrupted, given = whole
    (checkpoint,) = (uninterrupted / "run" / "checkpoints").glob(f"*step={step}.ckpt")
    train.main(fit(given, tmp_path, f"--ckpt_path={checkpoint}"))
    assert_same_run(tmp_path, uninterrupted, step)


@pytest.mark.parametrize(("how", "step"), [("SIGTERM", 7), ("time", 3), ("request", 11), ("SIGINT", 10)])
def test_stopped_after_a_step(whole: tuple[Path, Path], how: str, step: int, tmp_path: Path) -> None:
    uninterrupted, given = whole
    command = fit(given, tmp_path, "--trainer.max_time=00:10:00:00", callbacks=(stop_at(step, how),))
    if how.startswith("SIG"):
        with pytest.raises(SystemExit) as stopped:
            train.main(command)
        assert stopped.value.code == 128 + getattr(signal, how)
    else:
        train.main(command)
    record, (status, reason) = summary(tmp_path), ENDS.get(how, ("interrupted", how))
    assert (record["status"], record["reason"], record["complete"]) == (status, reason, False)
    assert record["steps"] == step and last(tmp_path)["global_step"] == step
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert record["continue_with"] == f"--ckpt_path {checkpoint}"

    train.main(fit(given, tmp_path, f"--ckpt_path={checkpoint}"))
    assert_same_run(tmp_path, uninterrupted, step)
    record, expected = summary(tmp_path), summary(uninterrupted)
    assert record["status"] == "finished" and record["complete"] and record["steps"] == expected["steps"]
    assert record["counts"] == expected["counts"]
    assert [attempt["from_step"] for attempt in record["attempts"]] == [0, step]


FEEDBACK: dict[str, Any] = {
    "synthesis": {"plan": "feedback", "feedback": {"power": 2.0, "floor": 0.2}},
    "trainer": {"val_check_interval": 2},
}
"""Shares that move after steps 2, 4, 7, 9 and 12."""


def plan_of(folder: Path) -> dict[str, Any]:
    """Returns shares and their history, as the last checkpoint holds them."""
    return stored_plan(folder / "run" / "checkpoints" / "last.ckpt")


def stored_plan(checkpoint: Path) -> dict[str, Any]:
    callbacks = torch.load(checkpoint, weights_only=True)["callbacks"]
    return next(state["plan"] for name, state in callbacks.items() if "OnlineSynthesis" in name)


@pytest.mark.parametrize(("step", "how"), [(7, "time"), (3, "time"), (11, "request")])
def test_shares_that_follow_recalls(step: int, how: str, tmp_path: Path) -> None:
    """A validation that the stop brings forward (after steps 3 and 11) moves nothing."""
    given = config(tmp_path, "mixed", **FEEDBACK)
    every = ["--checkpoint.every_n_train_steps=1", "--checkpoint.save_top_k=-1"]
    train.main(fit(given, tmp_path / "whole", *every))
    moved = plan_of(tmp_path / "whole")
    assert len(moved["history"]["0"]) > 2 and len(set(moved["shares"].values())) > 1

    (checkpoint,) = (tmp_path / "whole" / "run" / "checkpoints").glob(f"*step={step}.ckpt")
    train.main(fit(given, tmp_path / "killed", f"--ckpt_path={checkpoint}"))
    limits = "--trainer.max_time=00:10:00:00"
    train.main(fit(given, tmp_path / "stopped", limits, callbacks=(stop_at(step, how),)))
    assert last(tmp_path / "stopped")["global_step"] == step
    more = f"--ckpt_path={tmp_path / 'stopped' / 'run' / 'checkpoints' / 'last.ckpt'}"
    train.main(fit(given, tmp_path / "stopped", more))
    for resumed in (tmp_path / "killed", tmp_path / "stopped"):
        assert_same_run(resumed, tmp_path / "whole", step)
        assert plan_of(resumed) == moved


ENDS = {"time": ("stopped", "time"), "request": ("stopped", "request")}


CONSTANT = ["--model.init_args.schedule=constant", "--model.init_args.warmup_fraction=0"]
"""A schedule that does not depend on how many steps are planned."""


def test_with_more_steps_than_first_planned(tmp_path: Path) -> None:
    given = config(tmp_path, "classifier")
    train.main(fit(given, tmp_path / "whole", *CONSTANT))
    train.main(fit(given, tmp_path / "short", *CONSTANT, "--trainer.max_steps=8"))
    assert summary(tmp_path / "short")["reason"] == "steps"
    checkpoint = tmp_path / "short" / "run" / "checkpoints" / "last.ckpt"
    train.main(fit(given, tmp_path / "short", *CONSTANT, f"--ckpt_path={checkpoint}"))
    assert_same_run(tmp_path / "short", tmp_path / "whole", 8)


def test_with_more_patience_than_at_first(tmp_path: Path) -> None:
    def patient(epochs: int) -> str:
        stopping = {"monitor": "val/accuracy", "mode": "max", "patience": epochs, "min_delta": 9.0}
        return json.dumps({"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": stopping})

    given = config(tmp_path, "classifier")
    validated = [*CONSTANT, "--trainer.max_steps=-1", "--trainer.max_epochs=4", "--trainer.check_val_every_n_epoch=1"]
    train.main([*fit(given, tmp_path / "whole", *validated), f"--trainer.callbacks+={patient(9)}"])
    train.main([*fit(given, tmp_path / "short", *validated), f"--trainer.callbacks+={patient(1)}"])
    record = summary(tmp_path / "short")
    assert (record["status"], record["reason"], record["complete"]) == ("stopped", "patience", True)
    assert record["steps"] == 2 * STEPS and record["exit_code"] == 0
    more = f"--ckpt_path={tmp_path / 'short' / 'run' / 'checkpoints' / 'last.ckpt'}"
    train.main([*fit(given, tmp_path / "short", *validated, more), f"--trainer.callbacks+={patient(9)}"])
    assert summary(tmp_path / "short")["status"] == "finished"
    assert_same_run(tmp_path / "short", tmp_path / "whole", 2 * STEPS)


def test_a_record_is_true_after_any_chain_of_stops(tmp_path: Path) -> None:
    given = config(tmp_path, "classifier", trainer={"max_steps": 6 * STEPS, "val_check_interval": 2})
    train.main(fit(given, tmp_path / "whole", "--trainer.logger=true"))
    chain = [(3, "time"), (5, "SIGTERM"), (9, "request"), (14, "SIGINT"), (20, "time"), (29, "SIGTERM")]
    folder, more = tmp_path / "chain", ["--trainer.logger=true", "--trainer.max_time=00:10:00:00"]
    seconds: list[float] = []
    for step, how in [*chain, (0, "")]:
        command = fit(given, folder, *more, callbacks=(stop_at(step, how),) if step else ())
        try:
            train.main(command)
        except SystemExit as stopped:
            assert stopped.code == 128 + getattr(signal, how)  # noqa: PT017 (some of them end, some are ended)
        found = summary(folder)
        assert found["steps"] == (step or 6 * STEPS)
        assert found["counts"]["real"] == 8 * found["steps"]
        seconds.append(found["wall_s"])
        more = [*more[:2], f"--ckpt_path={folder / 'run' / 'checkpoints' / 'last.ckpt'}"]
    expected = summary(tmp_path / "whole")
    for name in ("status", "reason", "complete", "counts", "steps", "epochs", "seed", "best"):
        assert found[name] == expected[name], name
    for name, value in expected["metrics"].items():
        if name.startswith(("val/", "train/")):
            assert found["metrics"][name] == value, name
    assert [attempt["from_step"] for attempt in found["attempts"]] == [0, *(step for step, _ in chain)]
    assert seconds == sorted(seconds) and len(set(seconds)) == len(seconds)
    tables = [logged(where / "run" / "metrics.csv", "val/accuracy") for where in (folder, tmp_path / "whole")]
    extra = [step for step, _ in chain if _brings_a_validation_forward(step)]
    assert {row for row in tables[0] if row[0] + 1 not in extra} == {
        row for row in tables[1] if row[0] + 1 not in extra
    }


def _brings_a_validation_forward(step: int) -> bool:
    """Whether Lightning validates after a stop at this step although none was planned there."""
    return step % STEPS not in (2, 4)


def logged(path: Path, metric: str) -> list[tuple[int, str]]:
    """Returns (step, value) of a metric in a metrics.csv."""
    with path.open() as file:
        return [(int(row["step"]), row[metric]) for row in csv.DictReader(file) if row.get(metric)]


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_that_fill_their_pools(tmp_path: Path) -> None:
    given = config(tmp_path, "mixed", trainer={"devices": 2, "strategy": "ddp"})
    every = ["--checkpoint.every_n_train_steps=1", "--checkpoint.save_top_k=-1"]
    assert in_a_process(fit(given, tmp_path / "whole", *every)) == 0

    (checkpoint,) = (tmp_path / "whole" / "run" / "checkpoints").glob("*step=7.ckpt")
    assert in_a_process(fit(given, tmp_path / "killed", f"--ckpt_path={checkpoint}")) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole", 7, ranks=2)
    assert summary(tmp_path / "killed")["counts"] == summary(tmp_path / "whole")["counts"]

    # The scheduler's signal reaches one rank alone, and all of them stop after the same step.
    stopped = fit(given, tmp_path / "stopped", callbacks=(stop_at(4, "SIGTERM", rank=1),))
    assert in_a_process(stopped) == 128 + signal.SIGTERM
    assert last(tmp_path / "stopped")["global_step"] == summary(tmp_path / "stopped")["steps"] == 4
    counts = summary(tmp_path / "stopped")["counts"]
    assert counts["real"] + counts["synthetic"] == 2 * 8 * 4 and counts["synthetic"] == int(0.4 * 2 * 8 * 4)
    more = f"--ckpt_path={tmp_path / 'stopped' / 'run' / 'checkpoints' / 'last.ckpt'}"
    assert in_a_process(fit(given, tmp_path / "stopped", more)) == 0
    assert_same_run(tmp_path / "stopped", tmp_path / "whole", 4, ranks=2)

    # On one rank the counts of both go on, and the distinct faces stay within what they were.
    before = torch.load(checkpoint, weights_only=True)["ExpressionDataModule"]["position"]
    one = fit(given, tmp_path / "one", f"--ckpt_path={checkpoint}", "--trainer.devices=1", "--trainer.strategy=auto")
    train.main(one)
    found = summary(tmp_path / "one")["counts"]
    steps_left = summary(tmp_path / "one")["steps"] - 7
    assert found["real"] + found["synthetic"] == before["real"] + before["synthetic"] + 8 * steps_left
    assert found["synthetic"] == int(0.4 * (found["real"] + found["synthetic"]) + 1e-9)


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_whose_shares_follow_recalls(tmp_path: Path) -> None:
    ranks = {"devices": 2, "strategy": "ddp", **FEEDBACK["trainer"]}
    given = config(tmp_path, "mixed", synthesis=FEEDBACK["synthesis"], trainer=ranks)
    every = ["--checkpoint.every_n_train_steps=1", "--checkpoint.save_top_k=-1"]
    assert in_a_process(fit(given, tmp_path / "whole", *every)) == 0
    moved = plan_of(tmp_path / "whole")
    histories = [[shares for _, shares in moved["history"][rank]] for rank in ("0", "1")]
    assert len(histories[0]) > 2 and histories[0] == histories[1]

    (checkpoint,) = (tmp_path / "whole" / "run" / "checkpoints").glob("*step=8.ckpt")
    assert in_a_process(fit(given, tmp_path / "killed", f"--ckpt_path={checkpoint}")) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole", 8, ranks=2)
    assert plan_of(tmp_path / "killed") == moved

    # On one rank the pools of both are made again, by the shares that each of them had.
    one = ["--trainer.devices=1", "--trainer.strategy=auto", f"--ckpt_path={checkpoint}"]
    train.main(fit(given, tmp_path / "one", *one))
    before, after = (state["history"] for state in (stored_plan(checkpoint), plan_of(tmp_path / "one")))
    assert after["1"] == before["1"] and after["0"][: len(before["0"])] == before["0"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.ddp)])
def test_lora_killed_again_and_again(ranks: int, tmp_path: Path) -> None:
    """At five steps drawn by lot, one rank or the other; each time it goes on from the last checkpoint."""
    trainer = {"devices": 2, "strategy": "ddp"} if ranks == 2 else {}
    given = config(tmp_path, "lora", trainer=trainer)
    every = ["--checkpoint.every_n_train_steps=1"]
    assert in_a_process(fit(given, tmp_path / "whole", *every)) == 0
    shutil.rmtree(tmp_path / "cache")

    draw = random.Random(ranks)
    steps_of_kills = sorted(draw.sample(range(2, 2 * STEPS + 4), 5))
    more: list[str] = []
    for step in steps_of_kills:
        kill = stop_at(step, "SIGKILL", rank=draw.randrange(ranks))
        assert in_a_process(fit(given, tmp_path / "killed", *every, *more, callbacks=(kill,))) != 0
        found = tmp_path / "killed" / "run" / "checkpoints" / "last.ckpt"
        # The step in which it was killed is lost: it had not been saved.
        assert torch.load(found, weights_only=True)["global_step"] == step - 1
        more = [f"--ckpt_path={found}"]
    assert in_a_process(fit(given, tmp_path / "killed", *every, *more)) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole", steps_of_kills[-1] - 1, ranks=ranks)


def in_a_process(command: list[str]) -> int:
    """Runs a command as a user does; returns its exit code."""
    done = run_to_end([sys.executable, str(PROJECT / "train.py"), *command], cwd=PROJECT, env=dict(os.environ))
    if done.returncode not in (0, 128 + signal.SIGTERM):
        print(done.stderr[-3000:])
    return done.returncode
