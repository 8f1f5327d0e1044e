"""What older versions have written still loads (contract C10)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import train
from experiments.compare.run_folders import read_run_folder
from synfer.runs.run_end import is_complete

OLD = Path(__file__).parent / "fixtures" / "cacc19f"


def rows(folder: Path, checkpoint: Path | None = None) -> list[list[str]]:
    """Returns the rows that each step of a fit has seen."""
    folder.mkdir()
    record = json.dumps({"class_path": "tests.fixtures.rank_record.RankRecord", "init_args": {"folder": str(folder)}})
    more = [f"--ckpt_path={checkpoint}"] if checkpoint else []
    given = [f"--config={OLD / 'classifier.yaml'}", f"--trainer.callbacks+={record}", f"--run_dir={folder / 'run'}"]
    train.main(["fit", *given, *more])
    return [step["real"] for step in json.loads((folder / "rank0.json").read_text())["steps"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    return rows(tmp_path_factory.mktemp("whole") / "now")


@pytest.mark.parametrize("step", [3, 5])
def test_a_checkpoint_without_a_position_goes_on_where_its_loops_say(
    step: int, whole: list[list[str]], tmp_path: Path
) -> None:
    """In the middle of an epoch, and at its last batch before the validation."""
    checkpoint = OLD / f"classifier-step{step}.ckpt"
    assert "position" not in torch.load(checkpoint, weights_only=True)["ExpressionDataModule"]
    assert rows(tmp_path / "on", checkpoint) == whole[step:]
    summary = json.loads((tmp_path / "on" / "run" / "summary.json").read_text())
    assert summary["steps"] == 10 and summary["counts"]["real"] == 80 and summary["status"] == "finished"


def test_a_checkpoint_can_be_evaluated(tmp_path: Path) -> None:
    checkpoint = f"--ckpt_path={OLD / 'classifier-step5.ckpt'}"
    train.main(["test", f"--config={OLD / 'classifier.yaml'}", checkpoint, f"--run_dir={tmp_path}"])
    assert 0 <= json.loads((tmp_path / "summary.json").read_text())["metrics"]["test/accuracy"] <= 1


def test_a_summary_is_compared(tmp_path: Path) -> None:
    shutil.copy(OLD / "summary.json", tmp_path)
    assert is_complete(json.loads((OLD / "summary.json").read_text()))
    run = read_run_folder(tmp_path)
    assert run.status == "finished" and run.seed == 1 and "val/accuracy" in run.last
