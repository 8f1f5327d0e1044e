"""A run that was stopped at any step and goes on is the same run, bit for bit, for every shipped module."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from datamodules.expressions import LABEL_SPACES
from tests.lightning_modules.tiny_generator import (
    TINY_AUTOENCODER,
    TINY_TEXT,
    TINY_UNET,
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
        "class_path": "lightning_modules.action_unit_estimation.ActionUnitEstimation",
        "init_args": {"backbone": "resnet10t", "backbone_kwargs": {"stem_width": 8}, "image_size": 16},
    }


def mixed(folder: Path) -> dict[str, Any]:
    save_checkpoint(tiny_generator(label_space="basic7"), folder / "generator.ckpt")
    save_checkpoint(tiny_classifier(BASIC7), folder / "voter.ckpt")
    return classifier(folder)


MODULES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "classifier": classifier,
    "generator": generator,
    "annotator": annotator,
    "au_estimator": au_estimator,
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
    record = {"class_path": "tests.rank_record.RankRecord", "init_args": {"folder": str(folder)}}
    listed = [f"--trainer.callbacks+={json.dumps(callback)}" for callback in (*callbacks, record)]
    return ["fit", f"--config={given}", *listed, f"--run_dir={folder / 'run'}", *more]


def stop_at(step: int, how: str, rank: int = 0) -> dict[str, Any]:
    return {"class_path": "tests.stop_at.StopAt", "init_args": {"step": step, "how": how, "rank": rank}}


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


ENDS = {"time": ("stopped", "time"), "request": ("stopped", "request")}
