from __future__ import annotations

from pathlib import Path

import pytest

import train
from experiments.command_line.presets_command import main

PRESETS = Path(train.__file__).parent / "configs" / "presets"


def test_presets_are_listed_each_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in PRESETS.glob("*.yaml"))
    assert max(map(len, lines)) <= 120


def test_a_copy_has_its_comments_and_is_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo"]) == 0
    text = capsys.readouterr().out
    assert text == (PRESETS / "demo.yaml").read_text() and text.startswith("# ")
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    assert train.parse(["fit", "--config", "mine.yaml"]).data == train.parse(["fit", "--preset", "demo"]).data


def test_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dmo"]) == 2
    assert capsys.readouterr().err.endswith("did you mean demo?\n")
