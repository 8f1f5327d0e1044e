"""The chain of FER2013 networks: its commands parse, it goes on where it was stopped, and says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import train
from demo import chained_runs, fer2013
from demo.chained_runs import DemoError, Part, Progress


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fer2013.PROJECT)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts that were started; each leaves what a finished run leaves."""
    names: list[str] = []

    def run(part: Part, progress: Progress) -> None:
        names.append(part.name)
        part.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part.checkpoint.write_text(f"weights of {part.name}")
        figures = {step.figure: 0.5 for step in fer2013.STEPS}
        (part.run_dir / "summary.json").write_text(
            json.dumps({"status": "finished", "metrics": figures, "cpu_s": 90, "steps": 3})
        )

    monkeypatch.setattr(fer2013, "run_part", run)
    return names


def test_every_command_parses_and_reads_what_the_ones_before_leave(tmp_path: Path) -> None:
    for quick in (False, True):
        made = fer2013.parts(tmp_path, tmp_path / "data", quick)
        assert [part.name for part in made] == ["classifier", "judge", "guide", "generator", "guided_test"]
        for part in made if quick else made[-1:]:
            words = part.command()[1:]
            config = train.parse([word for word in words if not word.startswith("--ckpt_path")])  # not there yet
            assert config.data.reader.init_args.root == str(tmp_path / "data")
    judge, guide, generator = made[1:4]
    assert config.test.judge == str(judge.checkpoint) and config.guidance.guide == str(guide.checkpoint)
    assert f"--ckpt_path={generator.checkpoint}" in words


def test_a_processor_without_bfloat16_trains_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fast in (False, True):
        monkeypatch.setattr(fer2013, "_fast_bfloat16", lambda: fast)  # noqa: B023 (called at once)
        words = [part.command() for part in fer2013.parts(tmp_path)]
        assert all(("--trainer.precision=32-true" in command) is not fast for command in words)
        assert sum("--model.execution.bf16_sampling=false" in command for command in words) == (0 if fast else 2)


def test_what_is_finished_is_kept_and_the_table_has_its_figures(
    tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fer2013, "FOLDER", tmp_path / "runs")
    fer2013.main(["--data", str(tmp_path)])
    assert started == [step.name for step in fer2013.STEPS]
    told = capsys.readouterr().out
    assert "val/accuracy 0.5000" in told and "1.5" in told
    assert (tmp_path / "runs" / "report.txt").read_text().strip() in told
    fer2013.main(["--data", str(tmp_path)])
    assert len(started) == len(fer2013.STEPS)
    (tmp_path / "runs" / "judge" / "checkpoints" / "last.ckpt").write_text("another judge")
    fer2013.main(["--data", str(tmp_path)])
    assert started[len(fer2013.STEPS) :] == ["guided_test"], "it alone reads the judge"


def test_a_stopped_run_goes_on_and_one_with_other_settings_begins_anew(tmp_path: Path) -> None:
    part = Part("generator", ("--a",), tmp_path, goes_on=True)
    seen: list[bool] = []

    def stopped(part: Part, progress: Progress) -> None:
        seen.append(part.checkpoint.is_file())
        part.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part.checkpoint.write_text("half way")
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            chained_runs.do_what_is_missing(part, Progress(), stopped)
    assert seen == [False, True]
    other = Part("generator", ("--b",), tmp_path, goes_on=True)
    with pytest.raises(KeyboardInterrupt):
        chained_runs.do_what_is_missing(other, Progress(), stopped)
    assert seen[-1] is False
    anew = Part("generator", ("--b",), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        chained_runs.do_what_is_missing(anew, Progress(), stopped)
    assert seen[-1] is False, "a part that does not go on begins anew"


def test_missing_data_are_named_before_anything_is_trained(tmp_path: Path, started: list[str]) -> None:
    with pytest.raises(DemoError, match=r"found no folder .*nowhere, expected FER2013 with the votes .* --data path"):
        fer2013.main(["--data", str(tmp_path / "nowhere")])
    assert not started


def test_the_list_trains_nothing(started: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fer2013.main(["--list"])
    told = capsys.readouterr().out
    assert all(step.purpose in told for step in fer2013.STEPS) and not started
