"""The most wrong faces: which they are, where they go, and where they do not go."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.misclassified_faces import LARGEST_SIDE, MisclassifiedFaces, _small

NAMES = ("happy", "sad", "fear")


def trainer(folder: Path, **changes: Any) -> Any:
    settings = {"default_root_dir": str(folder), "is_global_zero": True, "fast_dev_run": False, "loggers": []}
    return SimpleNamespace(**{**settings, **changes}, state=SimpleNamespace(fn="validate"))


def batch(labels: list[int], prefix: str = "val", side: int = 8) -> dict[str, Any]:
    faces = torch.rand(len(labels), 3, side, side)
    return {"image": faces, "label": torch.tensor(labels), "sample_id": [f"{prefix}-{i}" for i in range(len(labels))]}


def rows_of(path: Path) -> list[list[str]]:
    with path.open() as file:
        return list(csv.reader(file))


def test_the_surest_wrong_ones_of_all_batches(tmp_path: Path) -> None:
    callback, module, run = MisclassifiedFaces(2), SimpleNamespace(label_space=NAMES), trainer(tmp_path)
    callback.on_validation_start(run, module)  # type: ignore[arg-type]
    right_and_wrong = torch.tensor([[0.99, 0.01, 0.0], [0.9, 0.1, 0.0], [0.3, 0.6, 0.1]])
    callback.on_validation_batch_end(run, module, right_and_wrong, batch([0, 1, 2], "a"), 0)  # type: ignore[arg-type]
    surer = torch.tensor([[0.0, 0.05, 0.95], [0.2, 0.1, 0.7]])
    callback.on_validation_batch_end(run, module, surer, batch([0, 2], "b"), 1)  # type: ignore[arg-type]
    callback.on_validation_end(run, module)  # type: ignore[arg-type]
    assert rows_of(tmp_path / "misclassified" / "val.csv") == [
        ["sample_id", "label", "predicted", "confidence"],
        ["b-0", "happy", "fear", "0.95"],
        ["a-1", "sad", "happy", "0.9"],
    ]
    assert (tmp_path / "misclassified" / "val.png").stat().st_size > 100
    assert not (tmp_path / "samples").exists()  # whose pictures go to W&B


def test_each_evaluation_starts_afresh_and_zero_keeps_nothing(tmp_path: Path) -> None:
    module, run = SimpleNamespace(label_space=NAMES), trainer(tmp_path)
    wrong = torch.tensor([[0.1, 0.9, 0.0]])
    callback = MisclassifiedFaces()
    callback.on_test_batch_end(run, module, wrong, batch([0]), 0)  # type: ignore[arg-type]
    callback.on_test_start(run, module)  # type: ignore[arg-type]
    callback.on_test_end(run, module)  # type: ignore[arg-type]
    off = MisclassifiedFaces(0)
    off.on_test_batch_end(run, module, wrong, batch([0]), 0)  # type: ignore[arg-type]
    off.on_test_end(run, module)  # type: ignore[arg-type]
    assert not (tmp_path / "misclassified").exists()


def test_models_that_give_no_probabilities_are_left_alone(tmp_path: Path) -> None:
    callback, run = MisclassifiedFaces(), trainer(tmp_path)
    callback.on_test_batch_end(run, SimpleNamespace(), None, batch([0]), 0)  # type: ignore[arg-type]
    callback.on_test_end(run, SimpleNamespace())  # type: ignore[arg-type]
    assert not (tmp_path / "misclassified").exists()


def test_large_faces_are_kept_small() -> None:
    face = _small(torch.ones(3, 300, 200))
    assert max(face.shape[-2:]) == LARGEST_SIDE and face.dtype == torch.uint8 and int(face.min()) == 255
    assert _small(torch.zeros(3, 48, 48)).shape == (3, 48, 48)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"misclassified\.faces: found -1, expected at least 0"):
        MisclassifiedFaces(-1)
