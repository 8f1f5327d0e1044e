"""What is written into a run folder is what is read from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer.runs.run_format import (
    last_checkpoint,
    load_config,
    load_summary,
    mark_summary,
    read_fit_summary,
    read_summary,
    sweep_parameters,
    take_best,
    write_config,
    write_summary,
)


def test_a_summary_comes_back(tmp_path: Path) -> None:
    summary = {"task": "fit", "status": "running", "metrics": {"val/loss": 0.5}, "config": {"run_dir": tmp_path}}
    assert read_summary(tmp_path) == {} and read_fit_summary(tmp_path) is None
    write_summary(tmp_path, summary)
    assert load_summary(tmp_path) == read_fit_summary(tmp_path) == {**summary, "config": {"run_dir": str(tmp_path)}}
    write_summary(tmp_path, {**summary, "task": "test"})
    assert read_fit_summary(tmp_path) is None and read_summary(tmp_path)["task"] == "test"


def test_a_full_disk_still_tells_how_it_ended(tmp_path: Path) -> None:
    write_summary(tmp_path, {"task": "fit", "status": "running", "metrics": {}})
    size = (tmp_path / "summary.json").stat().st_size
    mark_summary(tmp_path, "failed")
    assert load_summary(tmp_path)["status"] == "failed" and (tmp_path / "summary.json").stat().st_size == size


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "found no summary.json"), ("{", "cannot be read"), ("[]", "holds no metrics"), ("{}", "holds no metrics")],
)
def test_what_is_no_summary(text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_summary(tmp_path)
    assert read_summary(tmp_path) == {}


def test_settings_of_a_later_task_lie_beside_the_run_s_own(tmp_path: Path) -> None:
    assert write_config(tmp_path, "seed_everything: 1\n").name == "config.yaml"
    assert write_config(tmp_path, "seed_everything: 2\n", "test").name == "config.test.yaml"
    assert load_config(tmp_path) == {"seed_everything": 1}
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"found no settings in summary\.json or config\.yaml: found no YAML"):
        load_config(tmp_path)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"


def test_the_better_value_stays() -> None:
    best = {"val/accuracy": 0.5, "val/loss": 1.0}
    take_best(best, {"val/accuracy": 0.4, "val/loss": 0.9, "val/recall/fear": 0.1, "val/temperature": 2.0})
    assert best == {"val/accuracy": 0.5, "val/loss": 0.9, "val/recall/fear": 0.1}


def test_parameters_of_a_sweep(tmp_path: Path) -> None:
    assert sweep_parameters(tmp_path) == ()
    (tmp_path / "sweep.json").write_text('{"parameters": {"data.seed": 1}}')
    assert sweep_parameters(tmp_path) == ("data.seed",)
