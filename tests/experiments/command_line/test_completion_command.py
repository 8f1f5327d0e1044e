from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from experiments.command_line.completion_command import main

_COMPLETE = """
source "$1"; shift
function=$(complete -p synfer | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=(synfer "$@"); COMP_CWORD=$#; COMPREPLY=()
$function
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import contextlib
    import io

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["bash"]) == 0
    path = tmp_path_factory.mktemp("completion") / "synfer"
    path.write_text(printed.getvalue())
    return path


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["f"], "fit"),
        (["fit", "--data.batch_s"], "--data.batch_size"),
        (["predict", "--preset", "mix"], "mixed"),
        (["fit", "--model", "ExpressionC"], "ExpressionClassifier"),
        (["fit", "--model.learning"], "--model.learning_rate"),
        (["fit", "--data.reader", "Image"], "ImageFolderReader"),
        (["fit", "--data.reader.init_args.r"], "--data.reader.init_args.root"),
        (["fit", "--config", "mine.y"], "mine.yaml"),
        (["sweep", "--dry"], "--dry_run"),
    ],
)
def test_bash_completes(words: list[str], wanted: str, script: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    command = ["bash", "--norc", "-c", _COMPLETE, "bash", str(script), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert wanted in done.stdout.splitlines(), done.stderr


def test_zsh_has_a_script_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zsh"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("#compdef synfer") and "--data.batch_size" in text


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fish"])
    assert stopped.value.code == 2 and "fish" in capsys.readouterr().err
