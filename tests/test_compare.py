"""compare.py as a command: what it prints, writes and refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import wandb

import compare
from experiments.compare.run_folders import read_run_folders
from tests.fixtures.synthetic_runs import write_run

PROJECT = Path(__file__).resolve().parent.parent


def study(folder: Path) -> Path:
    for ratio, gain in ((0.0, 0.0), (0.5, 0.05)):
        for seed in (1, 2, 3):
            write_run(folder / f"{ratio}-{seed}", ratio, seed, 0.6 + gain + seed / 100 + ratio * seed / 1000)
    return folder


def test_prints_the_table_and_writes_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert compare.main([str(study(tmp_path / "runs")), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "+5.1 [+5.0, +5.2]" in printed.out and "control" in printed.out and printed.err == ""
    assert {path.name for path in out.iterdir()} == {
        *("report.html", "table.csv"),
        *("curve_synthetic_ratio.png", "differences.png", "learning.png", "recall.png"),
    }


def test_reads_what_train_py_really_writes(
    tmp_path: Path, tiny_run: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    import train

    train.main(["fit", *tiny_run, f"--run_dir={tmp_path / 'runs' / 'a'}"])
    capsys.readouterr()
    assert compare.main([str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1 and "one seed per group" in printed.err
    assert "val/accuracy in %, last" in printed.out and printed.out.count("neutral") == 1
    assert "data:image/jpeg" in (tmp_path / "report.html").read_text()  # the confusion matrix
    (run,) = read_run_folders([tmp_path / "runs"])[0]
    assert set(run.splits) >= {"train", "val"} and run.history("val/accuracy") and run.counts["real"] == 112


def test_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path / "a")
    study(tmp_path / "b" / "deeper")
    args = [str(tmp_path / "a"), str(tmp_path / "b"), "--metric", "val/ece", "--swept", "synthetic_ratio"]
    assert compare.main([*args, "--control", "data.synthetic_ratio=0.5", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "val/ece in %, last" in printed.out
    assert [line.split()[-1] for line in printed.out.splitlines()[1:3]] == ["+0.0]", "control"]
    assert printed.err.count("twice in group") == 5 and "and 1 more" in printed.err


def test_bad_folders_are_named_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = study(tmp_path / "runs")
    (runs / "0.5-3" / "summary.json").unlink()
    write_run(runs / "half", 0.5, 4, status="running")
    assert compare.main([str(runs), str(tmp_path / "none"), "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("warning: ") for line in lines)
    for said in ("found no summary.json", "found no such folder", "not finished (running)", "lacks seed 3"):
        assert sum(said in line for line in lines) == 1, said
        assert said in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "found neither a folder nor --wandb"),
        (["{}/none"], "found no such folder"),
        (["{}/empty"], "found no run folder"),
        (["{}/unfinished"], "not finished (running)"),
        (["{}/runs", "--metric", "val/acc"], "metric 'val/acc': found in none of 6 runs"),
        (["{}/runs", "--swept", "data.ratio"], "key 'data.ratio': found in no run's settings"),
        (["{}/runs", "--control", "data.synthetic_ratio"], "expected KEY=VALUE"),
        (["{}/runs", "--control", "data.synthetic_ratio=0.3"], "found no group with it"),
        (["{}/runs", "--out", "{}/runs/0.0-1/summary.json"], "summary.json"),
    ],
)
def test_nothing_to_compare_is_one_line_and_exit_code_2(
    args: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "unfinished" / "a", status="running")
    out = [] if "--out" in args else ["--out", str(tmp_path / "out")]
    assert compare.main([*(arg.format(tmp_path) for arg in args), *out]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: ") and said in printed.err
    assert not (tmp_path / "out").exists()


def test_a_wrong_wandb_key_is_one_line_and_local_runs_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**options: object) -> None:
        raise wandb.errors.AuthenticationError("401 Unauthorized")

    monkeypatch.setattr(wandb, "Api", refused)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 36 + "wxyz")
    args = [str(study(tmp_path / "runs")), "--wandb", "entity/project", "--out", str(tmp_path)]
    assert compare.main(args) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: W&B project 'entity/project': the key ending in 'wxyz' (from WANDB_API_KEY)")
    assert compare.main(["--wandb", "entity/project"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_command_needs_neither_torch_nor_lightning(tmp_path: Path) -> None:
    script = (
        "import sys, compare; code = compare.main(sys.argv[1:]); "
        "sys.exit(code or ' '.join({'torch', 'lightning', 'wandb'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(study(tmp_path / "runs")), "--out", str(tmp_path)],
        capture_output=True, text=True, cwd=PROJECT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
