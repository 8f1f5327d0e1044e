"""Faces of a generator or guide that overflows reach neither set nor pool: one line says why.

Weights that are NaN themselves are refused when they are loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import train
from tests.callbacks.test_near_copy_count import BASIC7, SIDE, VIT, fit_command, folder, set_command, summary
from tests.lightning_modules.tiny_generator import save_checkpoint, tiny_classifier

__all__ = ["folder"]  # a fixture

LARGE = 3e38  # finite in float32; its square is not


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """The same files with a weight of the generator so large that its network overflows."""
    checkpoint = torch.load(folder / "generator.ckpt", weights_only=True)
    checkpoint["state_dict"]["model.unet.conv_in.bias"][0] = LARGE
    torch.save(checkpoint, tmp_path / "generator.ckpt")
    (tmp_path / "model.yaml").write_text((folder / "model.yaml").read_text())
    return tmp_path


def error_of(arguments: list[str], capsys: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert ended.value.code == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_no_set_of_black_faces(broken: Path, tmp_path: Path, capsys: Any) -> None:
    error = error_of(set_command(broken, tmp_path / "run"), capsys)
    assert "error: generated face 0 (seed 1) and 9 more of 10: found NaN" in error
    assert "(overflow while sampling: --model.bf16_sampling=false, a smaller guidance.step_size" in error
    assert not [*(tmp_path / "run").rglob("*.parquet"), *(tmp_path / "run").rglob("*.png")]


def test_no_training_on_black_faces(broken: Path, tmp_path: Path, capsys: Any) -> None:
    assert "error: generated face 0 (seed 1) and 5 more of 6: found NaN" in error_of(
        fit_command(broken, tmp_path / "run"), capsys
    )
    found = summary(tmp_path / "run")
    assert found["status"] == "failed" and found["steps"] == 0 and found["counts"]["generated"] == 0


def test_a_broken_guide_is_named(folder: Path, tmp_path: Path, capsys: Any) -> None:
    guide = tiny_classifier(BASIC7, 2, image_size=SIDE, backbone_kwargs=VIT)
    with torch.no_grad():
        guide.backbone.get_classifier().weight.fill_(LARGE)
    path = save_checkpoint(guide, tmp_path / "guide.ckpt")
    guided = ["--guidance.enabled=true", f"--guidance.guide={path}", "--guidance.start_step=0"]
    error = error_of(set_command(folder, tmp_path / "run", *guided, "--trainer.inference_mode=false"), capsys)
    assert "guide.ckpt': found a loss that is not finite at denoising step 0 of face 0, expected a number" in error
    assert not [*(tmp_path / "run").rglob("*.parquet")]
