"""Two ranks on one CPU, started as a user starts them: ``python train.py … --trainer.devices 2``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import train
from lightning_modules.generator import ExpressionGenerator
from synfer.pictures.sample_grid import save_sample_grid
from synfer.synthesis.request import SynthesisRequest
from tests.fixtures.processes import run_to_end
from tests.fixtures.tiny_generator import (
    TINY_AUTOENCODER,
    TINY_TEXT,
    TINY_UNET,
    save_checkpoint,
    tiny_generator,
)

PROJECT = Path(train.__file__).parent
pytestmark = [pytest.mark.ddp, pytest.mark.slow]
ROWS = 112

DATA: dict[str, Any] = {
    "reader": {
        "class_path": "datamodules.readers.DrawnReader",
        "init_args": {"count": {"train": ROWS, "val": 28, "test": 28}, "image_size": 32, "label_space": "basic7"},
    },
    "augmentation": {"flip": 0.5, "rotation": 10, "translate": 0.05, "contrast": 0.2, "erasing": 0.3},
}
ONE_VALIDATION_ROW: dict[str, Any] = {  # fewer than there are ranks
    "class_path": "datamodules.readers.DrawnReader",
    "init_args": {**DATA["reader"]["init_args"], "count": {"train": ROWS, "val": 1, "test": 1}},
}
LAYER_NORM_CLASSIFIER: dict[str, Any] = {
    "class_path": "lightning_modules.classifier.ExpressionClassifier",
    "init_args": {
        "label_space": "basic7",
        "backbone": "vit_tiny_patch16_224",  # layer norm: a sample's output does not depend on its batch
        "backbone_kwargs": {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2},
        "image_size": 32,
        "optimizer": "adamw",
        "learning_rate": 0.01,
        "schedule": "one_cycle",
        "flip_tta": False,
    },
}
WITHOUT_ATTENTION: dict[str, Any] = {
    "class_path": "lightning_modules.classifier.ExpressionClassifier",
    "init_args": {
        **LAYER_NORM_CLASSIFIER["init_args"],
        "backbone": "convnext_atto",
        "backbone_kwargs": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    },
}
GENERATOR: dict[str, Any] = {
    "class_path": "lightning_modules.generator.ExpressionGenerator",
    "init_args": {
        "label_space": "basic7",
        "image_size": 32,
        "codec": "autoencoder_kl",
        "codec_config": TINY_AUTOENCODER,
        "autoencoder_steps": 2,
        "unet": TINY_UNET,
        "text_encoder": TINY_TEXT,
        "bf16_sampling": False,
        "ema_decay": 0.9,
        "grid_samples": 1,
        "sampling": {"num_steps": 2, "guidance_scale": 2.0},
    },
}
AUGMENTER: dict[str, Any] = {
    "class_path": "lightning_modules.augmenter.SemanticAugmenter",
    "init_args": {
        "label_space": "basic7",
        "image_size": 32,
        "network": {"widths": [8, 8, 16], "latent_size": 8, "channels": 3},
        "loss": {"r1_every": 3},
        "learning_rate": 0.002,
        "clip_norm": 0.1,  # below the norms of almost all steps
        "ema_decay": 0.9,
    },
}
TRAINER: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "precision": "32-true",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def command_line(folder: Path, model: dict[str, Any], data: dict[str, Any], trainer: dict[str, Any]) -> list[str]:
    """Writes the configuration of a fit into a new folder and returns its command line."""
    folder.mkdir()
    record = {"class_path": "tests.fixtures.rank_record.RankRecord", "init_args": {"folder": str(folder)}}
    config = {"model": model, "data": {**DATA, **data}, "trainer": {**TRAINER, **trainer, "callbacks": [record]}}
    (folder / "given.yaml").write_text(yaml.safe_dump(config))
    return ["fit", f"--config={folder / 'given.yaml'}", f"--run_dir={folder / 'run'}"]


def two_ranks(arguments: list[str], *more: str) -> None:
    """Runs a fit on two ranks, in processes of their own."""
    strategy = [] if any(arg.startswith("--trainer.strategy") for arg in more) else ["--trainer.strategy=ddp"]
    command = [sys.executable, str(PROJECT / "train.py"), *arguments, "--trainer.devices=2", *strategy, *more]
    done = run_to_end(command, cwd=PROJECT, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-3000:]


def records(folder: Path, ranks: int) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


def test_classifier_with_synthesis_on_the_fly(tmp_path: Path) -> None:
    generator = save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    folder = tmp_path / "mixed"
    data = {"batch_size": 14, "synthetic_ratio": 0.5, "augmentation": {"enabled": False}, "reader": ONE_VALIDATION_ROW}
    arguments = command_line(folder, LAYER_NORM_CLASSIFIER, data, {"max_epochs": 2})
    synthesis = {"enabled": "true", "generator": generator, "batch_size": 6, "max_reuse": 2}
    sampling = "--synthesis.sampling={num_steps: 1, guidance_scale: 1.0}"
    two_ranks(arguments, *(f"--synthesis.{key}={value}" for key, value in synthesis.items()), sampling)

    ranks = records(folder, 2)
    assert [len(rank["steps"]) for rank in ranks] == [16, 16]  # 112 rows, 7 real ones per rank and step, twice
    for rank in ranks:
        assert rank["world_size"] == 2
        for step in rank["steps"]:
            assert len(step["real"]) == len(step["synthetic"]) == 7
    for epoch in range(2):
        rows = [{r for step in rank["steps"] if step["epoch"] == epoch for r in step["real"]} for rank in ranks]
        assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == ROWS

    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["world_size"] == 2 and summary["counts_of"] == "all ranks"
    assert summary["metrics"]["val/accuracy"] in (0, 1)  # of one row, which one rank has alone
    # 112 draws per rank, each face twice on average: 56 due, of which whole batches of six make 54.
    expected = {"real": 2 * ROWS, "synthetic": 2 * ROWS, "discarded": 0, "generated": 2 * 54}
    expected |= {"checked": 2 * 54, "near_copies": 0}
    assert summary["counts"] == expected

    for number, rank in enumerate(ranks):
        assert all(name.startswith(f"syn-{number}-") for step in rank["steps"] for name in step["synthetic"])
    images = [{d for step in rank["steps"] for d in step["synthetic_images"]} for rank in ranks]
    assert not images[0] & images[1] and min(len(rank) for rank in images) > 20


@pytest.mark.parametrize("ahead", [False, True])
def test_ranks_make_faces_in_the_same_steps_whatever_a_vote_leaves_each(tmp_path: Path, ahead: bool) -> None:
    """Rank 1 keeps half of what it makes: by itself it would make faces twice as often, and rank 0 wait for it."""
    generator = save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    folder = tmp_path / "mixed"
    data = {"batch_size": 14, "synthetic_ratio": 0.5, "augmentation": {"enabled": False}}
    arguments = command_line(folder, WITHOUT_ATTENTION, data, {"max_epochs": 2, "limit_val_batches": 0})
    given = yaml.safe_load((folder / "given.yaml").read_text())
    vote = {"class_path": "tests.fixtures.uneven_vote.UnevenVote", "init_args": {"folder": str(folder)}}
    given["trainer"]["callbacks"].append(vote)
    (folder / "given.yaml").write_text(yaml.safe_dump(given))
    synthesis = {"enabled": "true", "generator": generator, "batch_size": 6, "max_reuse": 2, "initial_samples": 3}
    synthesis["ahead"] = str(ahead).lower()
    sampling = "--synthesis.sampling={num_steps: 1, guidance_scale: 1.0}"
    two_ranks(arguments, *(f"--synthesis.{key}={value}" for key, value in synthesis.items()), sampling)

    made = [json.loads((folder / f"made{rank}.json").read_text()) for rank in range(2)]
    assert made[0] == made[1]
    kept = 6 * len(made[0]) + 3 * len(made[1])
    drawn = 2 * ROWS  # by both
    assert drawn / 2 - 2 * 6 <= kept <= drawn / 2  # each face twice in the mean of the ranks, to a batch of each


PRETRAINING: dict[str, Any] = {
    "class_path": "lightning_modules.pretraining.FacePretraining",
    "init_args": {
        "method": "moco_v3",
        **{n: LAYER_NORM_CLASSIFIER["init_args"][n] for n in ("backbone", "backbone_kwargs", "image_size")},
        "head": {"hidden": 16, "out": 8},
        "neighbours": {"neighbours": 5, "bank": 60},
        "optimizer": "sgd",
        "learning_rate": 0.0002,  # rounding grows from step to step, with the rate, and otherwise on other processors
        "schedule": "constant",
        "warmup_fraction": 0.0,
    },
}


def test_pretraining_on_two_ranks_is_that_of_one(tmp_path: Path) -> None:
    data: dict[str, Any] = {"eval_batch_size": 5, "augmentation": {"enabled": False}}
    lengths = {"max_steps": 7, "max_epochs": 1}
    alone, together = tmp_path / "alone", tmp_path / "together"
    train.main(command_line(alone, PRETRAINING, {**data, "batch_size": 16}, lengths))
    two_ranks(command_line(together, PRETRAINING, {**data, "batch_size": 8}, lengths))

    found, ranks = records(alone, 1)[0], records(together, 2)
    assert ranks[0]["weights"] == ranks[1]["weights"] and len(found["steps"]) == 7
    for one, first, second in zip(found["steps"], *(rank["steps"] for rank in ranks), strict=True):
        assert sorted(one["real"]) == sorted(first["real"] + second["real"])
        assert first["loss"] != second["loss"]
        # The heads' batch norms divide by small deviations, which makes much of float32's rounding; in float64 the
        # losses and gradients of ranks and of one process agree to 1e-9 (tests/synfer/representation).
        assert (first["loss"] + second["loss"]) / 2 == pytest.approx(one["loss"], rel=1e-3)
    metrics = [json.loads((folder / "run" / "summary.json").read_text())["metrics"] for folder in (alone, together)]
    assert metrics[0]["val/knn_accuracy"] == metrics[1]["val/knn_accuracy"]
    states = [
        torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (alone, together)
    ]
    assert any(name.startswith("method.teacher.") for name in states[0])
    for name, tensor in states[0].items():
        assert torch.allclose(tensor.float(), states[1][name].float(), atol=1e-4), name


def test_generator_on_two_ranks(tmp_path: Path) -> None:
    folder = tmp_path / "generator"
    data: dict[str, Any] = {
        "batch_size": 8,
        "steps_per_epoch": 5,
        "eval_batch_size": 14,
        "augmentation": {"enabled": False},
    }
    data["reader"] = ONE_VALIDATION_ROW
    arguments = command_line(folder, GENERATOR, data, {"max_epochs": 1})
    two_ranks(arguments, "--trainer.strategy=ddp_find_unused_parameters_true")  # autoencoder and UNet learn in turn

    ranks = records(folder, 2)
    assert [len(rank["steps"]) for rank in ranks] == [5, 5]
    assert [len(rank["noise"]) for rank in ranks] == [3, 3]  # after two steps of the autoencoder
    drawn = [tuple(step["timesteps"]) for rank in ranks for step in rank["noise"]]
    assert len(set(drawn)) == 6
    for first, second in zip(ranks[0]["noise"], ranks[1]["noise"], strict=True):
        assert np.abs(np.subtract(first["latents"], second["latents"])).max() > 0.1
    assert ranks[0]["weights"] == ranks[1]["weights"]  # gradients are shared

    # The grid after validation was made by both ranks, each its share, and is what one process makes.
    (path,) = (folder / "run" / "samples").glob("grid-*.png")
    generator = ExpressionGenerator.load_trained(folder / "run" / "checkpoints" / "last.ckpt")
    names = generator.label_space
    request = SynthesisRequest.from_expressions(names, range(len(names)), 1, generator.sampling)
    save_sample_grid(generator.synthesise(request).images, names, 1, tmp_path / "alone.png")
    pictures = [np.asarray(Image.open(picture)).astype(int) for picture in (path, tmp_path / "alone.png")]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_augmenter_on_two_ranks(tmp_path: Path) -> None:
    lengths = {"max_steps": 30, "max_epochs": -1, "precision": "bf16-mixed", "limit_val_batches": 1}
    data = {"batch_size": 6, "steps_per_epoch": 12, "reader": ONE_VALIDATION_ROW}
    every = ["--checkpoint.every_n_train_steps=17", "--checkpoint.save_top_k=-1"]
    whole = tmp_path / "whole"
    two_ranks(command_line(whole, AUGMENTER, data, lengths), *every)
    ranks = records(whole, 2)
    assert [len(rank["steps"]) for rank in ranks] == [30, 30]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert all(a["loss"] != b["loss"] for a, b in zip(ranks[0]["steps"], ranks[1]["steps"], strict=True))
    stored = sorted(path.name for path in (whole / "run" / "checkpoints").glob("*.ckpt"))
    assert stored == ["epoch=1-step=17.ckpt", "last.ckpt"]
    assert json.loads((whole / "run" / "summary.json").read_text())["steps"] == 30

    resumed = tmp_path / "resumed"
    checkpoint = f"--ckpt_path={whole / 'run' / 'checkpoints' / stored[0]}"
    two_ranks(command_line(resumed, AUGMENTER, data, lengths), *every, checkpoint)
    for before, after in zip(ranks, records(resumed, 2), strict=True):
        assert after["steps"] == before["steps"][17:] and after["weights"] == before["weights"]


def test_one_rank_of_batch_2b_and_two_of_batch_b_learn_alike(tmp_path: Path) -> None:
    lengths = {"max_epochs": 2, "limit_val_batches": 0}
    one = command_line(tmp_path / "one", LAYER_NORM_CLASSIFIER, {"batch_size": 16}, lengths)
    two = command_line(tmp_path / "two", LAYER_NORM_CLASSIFIER, {"batch_size": 8}, lengths)
    train.main(one)
    two_ranks(two)
    (alone,), pair = records(tmp_path / "one", 1), records(tmp_path / "two", 2)
    assert len(alone["steps"]) == len(pair[0]["steps"]) == len(pair[1]["steps"]) == 14
    for whole, first, second in zip(alone["steps"], pair[0]["steps"], pair[1]["steps"], strict=True):
        assert sorted(whole["real"]) == sorted(first["real"] + second["real"])
        assert first["loss"] != second["loss"]
    curve = [step["loss"] for step in alone["steps"]]
    mean_of_ranks = [(a["loss"] + b["loss"]) / 2 for a, b in zip(pair[0]["steps"], pair[1]["steps"], strict=True)]
    np.testing.assert_allclose(mean_of_ranks, curve, atol=1e-4, rtol=0)
    assert max(curve) - min(curve) > 0.05  # a curve, not a constant
    a, b = (torch.tensor([run["weights"][name] for name in sorted(alone["weights"])]) for run in (alone, pair[0]))
    torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-3)
