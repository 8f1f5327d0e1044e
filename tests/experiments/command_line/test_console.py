from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.command_line import commands, console
from experiments.command_line.commands import COMMANDS, Command, available, called_as, is_synfer

PROJECT = Path(console.__file__).parents[2]
HEAVY = "torch", "lightning", "numpy", "jsonargparse", "yaml"


def test_the_help_fits_on_one_screen_with_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Command("experiments.command_line.console:main", "")
    all_of_them = {name: Command(there.target, command.summary) for name, command in COMMANDS.items()}
    monkeypatch.setattr(commands, "COMMANDS", all_of_them)  # as if those that are built elsewhere were there
    lines = console.help_screen().splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines[1 : 1 + len(COMMANDS)]] == list(COMMANDS)
    assert sum(line.count("--") for line in lines if line.startswith("  --")) == 10


def test_every_command_that_is_there_can_be_called() -> None:
    from synfer.foundation.late_import import imported_late

    assert {"fit", "validate", "test", "predict", "sweep", "compare", "export", "presets", "completion"} <= set(
        available()
    )
    assert all(callable(imported_late(command.target)) for command in available().values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fti"], "error: found no command 'fti', expected one of fit, validate, test, predict"),
        (["fti"], "did you mean fit?"),
        (["away"], "error: synfer away: not part of this installation, expected one of fit,"),
        (["--config", "x.yaml", "fit"], "error: found the option '--config' before a command, expected one of fit,"),
    ],
)
def test_what_is_no_command(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "away", Command("experiments.nowhere.command:main", "gone"))
    assert console.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "gone" not in console.help_screen()


def test_a_command_gets_the_words_after_it_and_gives_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.main(["presets", "mixd"]) == 2
    assert "did you mean mixed?" in capsys.readouterr().err
    assert console.main(["compare", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/synfer", "export", "--help"])
    with pytest.raises(SystemExit) as stopped:
        console.main()
    assert stopped.value.code == 0 and capsys.readouterr().out.startswith("usage: synfer export ")


def test_how_a_program_was_called() -> None:
    assert called_as("sweep", "/usr/bin/synfer") == called_as("sweep", "/there/synfer/__main__.py") == "synfer sweep"
    assert called_as("sweep", "sweep.py") == "sweep.py"
    assert not is_synfer("/synfer/train.py") and not is_synfer("/demo/__main__.py")


@pytest.mark.parametrize(
    ("words", "code"),
    [([], 0), (["--help"], 0), (["--version"], 0), (["fti"], 2), (["fit", "--data.batchsize", "3"], 2)],
)
def test_what_is_told_at_once_needs_nothing_heavy(words: list[str], code: int) -> None:
    script = (
        "import sys; sys.argv[0] = 'synfer'\n"
        "from experiments.command_line.console import main\n"
        "try: code = main()\n"
        "except SystemExit as stopped: code = stopped.code\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"heavy: [] {code}", done.stderr


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "synfer", "sweeep"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.endswith("did you mean sweep?\n")
