"""``make demo``: what is kept, what is done again, how it stops, and what it says at the end."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from demo import chained_runs
from demo import two_runs as demo
from demo.report import FinishedRun, draw_report, read_run, result_table
from lightning_modules.generator import ExpressionGenerator
from synfer.foundation.renamed_settings import present_settings

PROJECT = demo.PROJECT
NAMES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
SMALL = {
    "data": {
        "reader": {"init_args": {"count": {"train": 28, "val": 14, "test": 7}, "imbalance": 1.0}},
        "steps_per_epoch": 2,
        "batch_size": 8,
    },
    "trainer": {"max_epochs": 2},
}
SMALL_MIXED = {
    "synthesis": {"batch_size": 7, "initial_samples": 7, "sampling": {"num_steps": 2}},
    "guidance": {"start_step": 1},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo with its results in a folder of the test's own."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "demo")
    return tmp_path / "demo"


@pytest.fixture
def configs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The demo's configs with a file on top that makes each run a matter of steps: (of both runs, of the mixed run)."""
    small, small_mixed = tmp_path / "small.yaml", tmp_path / "small_mixed.yaml"
    small.write_text(yaml.safe_dump(SMALL))
    small_mixed.write_text(yaml.safe_dump(SMALL_MIXED))
    monkeypatch.setattr(demo, "CONFIGS", (*demo.CONFIGS, str(small)))
    monkeypatch.setattr(demo, "MIXED_CONFIGS", (*demo.MIXED_CONFIGS, str(small_mixed)))
    return small, small_mixed


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts that were started; a part leaves what a finished run leaves, and no report is made."""
    names: list[str] = []

    def run(part: demo.Part, progress: demo.Progress) -> None:
        names.append(part.name)
        part.checkpoint.parent.mkdir(parents=True)
        part.checkpoint.write_text(f"weights {len(names)}")
        (part.run_dir / "summary.json").write_text(json.dumps({"status": "finished"}))

    monkeypatch.setattr(demo, "run_part", run)
    monkeypatch.setattr(demo, "report", lambda *parts: "the table")
    return names


def script(monkeypatch: pytest.MonkeyPatch, text: str) -> demo.Part:
    """A part that runs a few lines of Python instead of train.py."""
    monkeypatch.setattr(demo.Part, "command", lambda part: ["-c", text])
    return demo.Part("part", (), demo.FOLDER)


def test_finished_parts_are_kept(configs: tuple[Path, Path], started: list[str]) -> None:
    demo.main()
    assert started == ["real_only", "mixed"]
    demo.main()
    assert started == ["real_only", "mixed"]


def test_only_what_a_changed_config_touches_is_done_again(configs: tuple[Path, Path], started: list[str]) -> None:
    demo.main()
    configs[1].write_text(configs[1].read_text().replace("num_steps: 2", "num_steps: 3"))
    demo.main()
    assert started == ["real_only", "mixed", "mixed"]


def test_a_new_guide_means_a_new_mixed_run(configs: tuple[Path, Path], started: list[str]) -> None:
    demo.main()
    configs[0].write_text(configs[0].read_text().replace("max_epochs: 2", "max_epochs: 3"))
    demo.main()
    assert started == ["real_only", "mixed", "real_only", "mixed"]


def test_an_unfinished_part_is_done_again(folder: Path, configs: tuple[Path, Path], started: list[str]) -> None:
    demo.main()
    (folder / "mixed" / "summary.json").write_text(json.dumps({"status": "interrupted"}))
    demo.main()
    assert started == ["real_only", "mixed", "mixed"]


def test_missing_generator_is_named_before_anything_starts(
    folder: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "GENERATOR", Path("no/such/folder"))
    with pytest.raises(demo.DemoError, match=r"^found no no/such/folder/config.json, .*configs/generator/drawn.yaml"):
        demo.main()
    assert started == []


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PACKAGES", ("json", "no_such_package"))
    with pytest.raises(demo.DemoError, match=r"'no_such_package' is not installed .* make install"):
        demo.check_installation()


def test_a_failed_run_says_why_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = script(monkeypatch, "import sys; print('on my way'); sys.exit('error: the disk is full\\nbye')")
    with pytest.raises(demo.DemoError) as caught:
        demo.run_part(part, demo.Progress())
    assert str(caught.value) == f"part ended with exit code 1: the disk is full (all of its output: {part.log})"


def test_stopping_stops_the_run_as_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["import time, pathlib", "place = pathlib.Path({0!r})", "try:", "    place.write_text('started')"]
    lines += ["    time.sleep(60)", "except KeyboardInterrupt:", "    place.write_text('stopped by Ctrl-C')"]
    place = folder.parent / "place"
    part = script(monkeypatch, "\n".join(lines).format(str(place)))

    def interrupt() -> None:
        while not (place.is_file() and place.read_text() == "started"):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell that starts a job in the background has it ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            demo.run_part(part, demo.Progress())
    finally:
        signal.signal(signal.SIGINT, before)
    assert place.read_text() == "stopped by Ctrl-C"
    assert time.monotonic() - began < 30


def test_progress_tells_each_validation_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chained_runs, "_POLL_S", 0.01)
    text = """
import json, pathlib, time
place = pathlib.Path({0!r})
place.mkdir(parents=True)
for steps, accuracy in ((75, 0.25), (150, 0.5)):
    partial = place / "partial"
    partial.write_text(json.dumps({{"status": "finished", "steps": steps, "metrics": {{"val/accuracy": accuracy}}}}))
    partial.replace(place / "summary.json")
    time.sleep(0.5)
"""
    demo.run_part(script(monkeypatch, text.format(str(folder / "part"))), demo.Progress())
    told = [line[8:] for line in capsys.readouterr().out.splitlines() if line.startswith("[") and "validation" in line]
    assert told == ["part: step 75, validation accuracy 25.0 %", "part: step 150, validation accuracy 50.0 %"]


def finished(accuracy: float, tmp_path: Path, **config: Any) -> FinishedRun:
    metrics = {"val/accuracy": accuracy, "val/mean_class_accuracy": accuracy}
    reader = {"init_args": {"count": {"train": 280, "val": 400, "test": 7}, "label_space": "basic7", "imbalance": 4.0}}
    return FinishedRun(
        config={"data": {"reader": reader}, "seed_everything": 1, **config},
        metrics=metrics | {f"val/recall/{name}": accuracy for name in NAMES},
        counts={"real": 100, "synthetic": 50, "discarded": 3, "generated": 20, "rectified": 5},
        steps=10,
        wall_s=1.0,
        curve=((5, accuracy / 2), (10, accuracy)),
    )


def test_table(tmp_path: Path) -> None:
    table = result_table(finished(0.5, tmp_path), finished(0.625, tmp_path))
    lines = {line[:22].strip(): line[22:].split() for line in table.splitlines()}
    assert lines["accuracy"] == ["50.0", "%", "62.5", "%", "+12.5"]
    assert {f"recall {name}" for name in NAMES} < set(lines)
    # Whole rows: the imbalance of 4 holds to the rounding of one face.
    assert abs(int(lines["recall neutral"][-1]) - 4 * int(lines["recall anger"][-1])) <= 4
    assert "± 2.5 points" in table  # √(0.25 / 400)
    assert "One seed proves nothing" in table
    assert max(map(len, table.splitlines())) <= 120


def test_read_run(tmp_path: Path) -> None:
    summary = {"status": "finished", "metrics": {"val/accuracy": 0.5}, "counts": {"real": 4}, "steps": 4, "wall_s": 1}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "config.yaml").write_text("seed_everything: 7\n")
    (tmp_path / "metrics.csv").write_text("epoch,step,val/accuracy,train/loss\n0,1,0.25,\n0,1,,2.0\n1,3,0.5,\n")
    run = read_run(tmp_path)
    assert run.curve == ((2, 0.25), (4, 0.5))
    assert run.config == {"seed_everything": 7}
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    with pytest.raises(ValueError, match="found status interrupted"):
        read_run(tmp_path)


def test_report_picture(tmp_path: Path) -> None:
    settings = {"generator": str(PROJECT / demo.GENERATOR), "sampling": {"num_steps": 1, "guidance_scale": 1.0}}
    off = {"guidance": {"enabled": False}, "pseudo_labels": {"enabled": False}}
    mixed = finished(0.6, tmp_path, synthesis=settings, **off)
    draw_report(finished(0.5, tmp_path), mixed, tmp_path / "new" / "report.png")
    picture = np.asarray(Image.open(tmp_path / "new" / "report.png").convert("RGB"))
    assert picture.shape == (902, 1760, 3)
    faces = picture[90:860, 110:960]
    assert (faces.std(axis=(0, 1)) > 20).all()  # faces in colour, not a white sheet
    assert not list(tmp_path.rglob("*.partial.png"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.png"]


def test_shipped_generator_is_the_one_of_its_config() -> None:
    folder = PROJECT / demo.GENERATOR
    assert (folder / "model.safetensors").stat().st_size <= 20e6
    stored = present_settings("diffusion", json.loads((folder / "config.json").read_text()))
    wanted = yaml.safe_load((PROJECT / "configs/generator/drawn.yaml").read_text())["model"]["init_args"]
    sampling = wanted.pop("sampling")
    for name, value in wanted.items():  # of a group, what the config says of it
        found = {key: stored[name][key] for key in value} if isinstance(value, dict) else stored[name]
        assert found == value, name
    assert {name: stored["sampling"][name] for name in sampling} == sampling
    generator = ExpressionGenerator.load_trained(folder)
    assert generator.label_space == NAMES


@pytest.mark.slow
def test_whole_demo_in_small(folder: Path, configs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    demo.main()
    told = capsys.readouterr().out
    assert "python train.py fit --config configs/classifier/tiny.yaml" in told
    assert "recall surprise" in told and "mean class accuracy" in told
    assert (folder / "report.png").stat().st_size > 50_000
    mixed = json.loads((folder / "mixed" / "summary.json").read_text())
    assert mixed["status"] == "finished"
    assert mixed["counts"]["real"] == mixed["counts"]["synthetic"] == 16
    assert mixed["config"]["guidance"]["enabled"] and mixed["config"]["pseudo_labels"]["enabled"]
