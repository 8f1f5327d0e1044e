"""Faces with NaN in their pixels reach neither set nor pool: one line says which, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import train
from synfer.synthesis.diffusion.denoising_state import DenoisingState
from tests.callbacks.synthesis.test_near_copy_count import fit_command, folder, set_command, summary

__all__ = ["folder"]  # a fixture


@pytest.fixture
def overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling overflows in the second face of each batch."""

    def denoise(state: DenoisingState, hooks: Any) -> torch.Tensor:
        state.latents[1, 0, 0, 0] = torch.inf
        return state.latents - state.latents

    monkeypatch.setattr("synfer.synthesis.diffusion.synthesiser.denoise", denoise)


def error_of(arguments: list[str], capsys: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert ended.value.code in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


def faces_in(run_dir: Path) -> list[Path]:
    rows = [path for path in run_dir.rglob("*.parquet") if path.parent.name != "rows"]  # those are of real faces
    return [*rows, *run_dir.rglob("*.png")]


def test_no_set_of_black_faces(folder: Path, tmp_path: Path, overflow: None, capsys: Any) -> None:
    error = error_of(set_command(folder, tmp_path), capsys)
    assert "generated face 1 (seed 1) and 0 more of 10: found NaN or infinite pixels, expected finite ones" in error
    assert "--model.execution.bf16_sampling=false" in error and not faces_in(tmp_path)


def test_no_training_on_black_faces(folder: Path, tmp_path: Path, overflow: None, capsys: Any) -> None:
    error = error_of(fit_command(folder, tmp_path), capsys)
    assert "generated face 1 (seed 1) and 0 more of 6: found NaN" in error
    found = summary(tmp_path)
    assert found["status"] == "failed" and found["steps"] == 0 and found["counts"]["checked"] == 0


@pytest.mark.parametrize("command", [set_command, fit_command])
def test_a_generator_with_a_broken_weight_makes_nothing(
    command: Any, folder: Path, tmp_path: Path, capsys: Any
) -> None:
    checkpoint = torch.load(folder / "generator.ckpt", weights_only=True)
    checkpoint["state_dict"]["model.unet.conv_in.bias"][0] = torch.nan
    torch.save(checkpoint, tmp_path / "generator.ckpt")
    (tmp_path / "model.yaml").write_text((folder / "model.yaml").read_text())
    error = error_of(command(tmp_path, tmp_path / "run"), capsys)
    assert "unet.conv_in.bias'" in error and not faces_in(tmp_path)
