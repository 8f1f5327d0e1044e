"""Run folders are read, and what cannot be read is named while the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.compare.run_folders import find_run_folders, read_run_folder, read_run_folders
from synfer.runs.metrics_table import read_history
from tests.fixtures.synthetic_runs import write_run


def test_reads_what_train_py_writes(tmp_path: Path) -> None:
    run = read_run_folder(write_run(tmp_path / "a", 0.5, seed=3, accuracy=0.7, history=[0.6, 0.75, 0.7]))
    assert (run.seed, run.status, run.task) == (3, "finished", "fit")
    assert run.config["data.synthetic_ratio"] == 0.5 and run.config["model.backbone"] == "resnet18"
    assert run.last["val/accuracy"] == 0.7 and run.last["val/recall/happy"] == pytest.approx(0.68)
    assert run.history("val/accuracy") == [(0, 0.6), (1, 0.75), (2, 0.7)]
    assert run.splits == {"train": "rows-of-seed-3", "val": "same"}
    assert run.counts["real"] == run.counts["synthetic"] == 5000
    assert run.label_space[0] == "neutral" and len(run.label_space) == 7


def test_a_run_counts_as_finished_where_nothing_is_missing(tmp_path: Path) -> None:
    def status(name: str, **end: object) -> str:
        return read_run_folder(write_run(tmp_path / name, summary=end)).status

    assert status("old", status="finished") == "finished"
    assert status("patience", status="stopped", reason="patience", complete=True) == "finished"
    assert status("time", status="stopped", reason="time", complete=False) == "stopped (time)"
    assert status("signal", status="interrupted", reason="SIGTERM", complete=False) == "interrupted (SIGTERM)"


def test_finds_runs_below_and_none_within_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "sweep" / "one" / "a")
    write_run(tmp_path / "b")
    write_run(tmp_path / "b" / "copy")
    (tmp_path / "logs").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in find_run_folders(tmp_path)]
    assert found == ["b", "sweep/one/a"]


def test_a_folder_given_twice_is_read_once(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    runs, warnings = read_run_folders([tmp_path, tmp_path / "a"])
    assert len(runs) == 1 and not warnings


def test_bad_folders_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    (write_run(tmp_path / "none") / "summary.json").unlink()
    (write_run(tmp_path / "torn") / "summary.json").write_text('{"task": "fit", ')
    (write_run(tmp_path / "list") / "summary.json").write_text("[1]")
    (write_run(tmp_path / "bytes") / "summary.json").write_bytes(b"\xff\xfe\x00")
    runs, warnings = read_run_folders([tmp_path, tmp_path / "nowhere"])
    assert [Path(run.name).name for run in runs] == ["good"]
    assert len(warnings) == 5 and all("\n" not in line for line in warnings)
    for name, said in [
        ("none", "found no summary.json"),
        ("torn", "cannot be read"),
        ("list", "holds no metrics"),
        ("bytes", "cannot be read"),
        ("nowhere", "found no such folder"),
    ]:
        assert any(f"{name}'" in line and said in line for line in warnings), name


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    runs, warnings = read_run_folders([tmp_path])
    assert not runs and "found no run folder" in warnings[0]


def test_settings_come_from_config_yaml_where_the_summary_has_none(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", 0.25, seed=2, summary={"config": None, "seed": None})
    assert read_run_folder(folder).config["data.synthetic_ratio"] == 0.25
    (folder / "config.yaml").unlink()
    with pytest.raises(ValueError, match="found no settings"):
        read_run_folder(folder)


def test_metrics_of_a_later_test_and_its_split(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    summary = json.loads((folder / "summary.json").read_text())
    summary["metrics"]["test/accuracy"] = 0.55
    summary["metrics"]["val/ece"] = None
    summary["test"] = {"task": "test", "splits": {"test": {"rows": 3, "sha256": "abc"}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    run = read_run_folder(folder)
    assert run.last["test/accuracy"] == 0.55 and "val/ece" not in run.last
    assert run.splits["test"] == "abc" and run.splits["val"] == "same"


def test_history_leaves_out_a_torn_row_and_what_was_not_logged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/accuracy\n0,9,0.5\n,10,\n0,19,nan\n1,29,0.6\n1,3")
    assert read_history(path, "val/accuracy") == [(9, 0.5), (29, 0.6)]
    assert read_history(path, "val/ece") == []
    assert read_history(tmp_path / "none.csv", "val/accuracy") == []


def test_history_that_is_no_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,val/accuracy\n1,good\n")
    with pytest.raises(ValueError, match=r"metrics\.csv' line 2: found 'good', expected a number"):
        read_history(path, "val/accuracy")


def test_parameters_of_the_sweep(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    assert read_run_folder(folder).sweep_keys == ()
    (folder / "sweep.json").write_text(json.dumps({"parameters": {"data.synthetic_ratio": 0, "seed_everything": 1}}))
    assert read_run_folder(folder).sweep_keys == ("data.synthetic_ratio", "seed_everything")


@pytest.mark.parametrize("entry", [{"counts": [1]}, {"best": "high"}, {"splits": [1]}])
def test_a_summary_of_another_form_is_one_line(entry: dict, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entry}))
    runs, told = read_run_folders([folder])
    assert not runs and len(told) == 1
    assert told[0].startswith(f"run '{path}': found another content, expected what train.py writes")
