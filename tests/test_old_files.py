"""What older versions have written still loads (contract C10)."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

import compare
import sweep
import train
from experiments.compare.run_folders import read_run_folder
from synfer.runs.run_end import is_complete

PROJECT = Path(train.__file__).parent
OLD = Path(__file__).parent / "fixtures" / "cacc19f"
SINCE = Path("tests/fixtures/d408323")
"""Every kind of file that commit d408323 wrote, seen from the project's folder: the files name each other so."""

COMMANDS: dict[str, list[str]] = yaml.safe_load((PROJECT / SINCE / "commands.yaml").read_text())
EXPECTED: dict[str, dict[str, Any]] = json.loads((PROJECT / SINCE / "expected.json").read_text())
SAME, SAME_AFTER_STEPS = 1e-6, 1e-2
"""Relative tolerances. Other processors round otherwise, which AdamW's first steps made 0.3 % of at most; other rows,
noise or weights change these few steps by far more than a hundredth."""


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


@pytest.fixture(scope="module")
def run_old(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs a command of commands.yaml once, at the project's folder, and returns its run folder."""
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "run"
            words = [word.replace("FILES", str(SINCE)) for word in COMMANDS[name]]
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(PROJECT)
                train.main([*words, f"--run_dir={folder}"])
            made[name] = folder
        return made[name]

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_old_files_measures_what_it_measured_then(name: str, run_old: Callable[[str], Path]) -> None:
    expected, summary = EXPECTED[name], json.loads((run_old(name) / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert (summary["steps"], summary["counts"]) == (expected["steps"], expected["counts"])
    found = {metric: summary["metrics"].get(metric) for metric in expected["metrics"]}
    tolerance = SAME_AFTER_STEPS if COMMANDS[name][0] == "fit" else SAME
    assert found == pytest.approx(expected["metrics"], rel=tolerance, abs=1e-9)


def test_the_settings_of_a_run_given_again_are_that_run(run_old: Callable[[str], Path]) -> None:
    """Its config.yaml as --config, with the class paths of then: the same figures at every step."""
    for name in ("classifier", "generator", "on_synthetic_set", "image_folder", "fer2013"):
        then, now = curves(PROJECT / SINCE / name), curves(run_old(f"{name}_again"))
        assert then and now.keys() >= then.keys()
        for place, value in then.items():
            assert math.isclose(now[place], value, rel_tol=SAME_AFTER_STEPS, abs_tol=1e-9), (name, place)


def curves(folder: Path) -> dict[tuple[str, str], float]:
    """Returns (metric, step) → value of metrics.csv, without speeds."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    cells = [(name, row["step"], cell) for row in rows for name, cell in row.items() if cell and "/" in name]
    return {(name, step): float(cell) for name, step, cell in cells if not name.startswith("throughput/")}


def test_the_same_faces_are_made_again(run_old: Callable[[str], Path]) -> None:
    """By the generator of then, with layout, guidance and vote of then."""
    then, now = synthetic_set(PROJECT / SINCE / "synthesis"), synthetic_set(run_old("synthesis_again"))
    assert len(then) == 12 and 0 < sum(row["kept"] for row in then) < 12
    for old, new in zip(then, now, strict=True):
        assert {key: old[key] for key in ("sample_id", "label", "caption", "seed", "layout_source", "kept", "au")} == {
            key: new[key] for key in ("sample_id", "label", "caption", "seed", "layout_source", "kept", "au")
        }
        assert np.abs(pixels(old) - pixels(new)).max() <= 1
        assert new["soft_label"] == pytest.approx(old["soft_label"], abs=1e-4)


def synthetic_set(run: Path) -> list[dict[str, Any]]:
    """Returns the rows of a set by sample id."""
    shards = sorted((run / "synthetic_set" / "data").glob("*.parquet"))
    return sorted((row for path in shards for row in pq.read_table(path).to_pylist()), key=lambda row: row["sample_id"])


def pixels(row: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        return np.asarray(image).astype(int)


def test_an_old_set_is_made_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the writer compares with what it would write today still agrees, and the old faces stay as they are."""
    monkeypatch.chdir(PROJECT)
    shutil.copytree(SINCE / "synthesis" / "synthetic_set", tmp_path / "synthetic_set")
    words = [word.replace("FILES", str(SINCE)) for word in COMMANDS["synthesis_again"]]
    train.main([*words, f"--run_dir={tmp_path}", "--data.synthesis_count=14"])
    then, now = synthetic_set(SINCE / "synthesis"), synthetic_set(tmp_path)
    assert now[:12] == then and len(now) == 14


def test_the_same_labels_are_found_again(run_old: Callable[[str], Path]) -> None:
    then = pq.read_table(PROJECT / SINCE / "relabelled" / "labels.parquet").to_pylist()
    now = pq.read_table(run_old("relabel_again") / "labels.parquet").to_pylist()
    assert len(then) == 28 and any(row["label"] != row["old_label"] for row in then)
    for old, new in zip(then, now, strict=True):
        assert {key: old[key] for key in ("sample_id", "content_hash", "old_label", "label")} == {
            key: new[key] for key in ("sample_id", "content_hash", "old_label", "label")
        }
        assert new["soft_label"] == pytest.approx(old["soft_label"], abs=1e-5)
        for voter, vote in old["votes"].items():
            assert new["votes"][voter] == pytest.approx(vote, abs=1e-5)


def test_an_old_sweep_is_done_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PROJECT)
    file, folder = str(SINCE / "settings" / "sweep.yaml"), str(SINCE / "sweep")
    assert sweep.main([file, f"--sweep_dir={folder}", "--dry_run"]) == 0
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()] == ["finished", "finished"]
    assert compare.main([folder, str(SINCE / "classifier"), "--out", str(tmp_path)]) == 0
    with (tmp_path / "table.csv").open() as now, (SINCE / "compared.csv").open() as then:
        assert list(csv.reader(now)) == list(csv.reader(then))
