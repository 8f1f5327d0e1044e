"""Configs that come with the project are found from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import train
from experiments.command_line.config_files import with_shipped_configs
from experiments.command_line.project import PROJECT, shipped

TINY = "configs/classifier/tiny.yaml"


def test_a_file_of_the_user_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped(TINY) == PROJECT / TINY and shipped("configs/nothing.yaml") == Path("configs/nothing.yaml")
    assert shipped(PROJECT / TINY) == PROJECT / TINY
    (tmp_path / TINY).parent.mkdir(parents=True)
    (tmp_path / TINY).write_text("model: {}\n")
    assert shipped(TINY) == Path(TINY)


def test_command_lines_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--config", TINY, f"--config={TINY}", "-c", "mine.yaml", "--run_dir", TINY, "--config"]
    there = str(PROJECT / TINY)
    assert with_shipped_configs(words) == [
        "fit", "--config", there, f"--config={there}", "-c", "mine.yaml", "--run_dir", TINY, "--config",
    ]  # fmt: skip
    parsed = train.parse(["fit", "--config", TINY, "--config=configs/data/drawn.yaml"])
    assert parsed.model.class_path.endswith("ExpressionClassifier")
