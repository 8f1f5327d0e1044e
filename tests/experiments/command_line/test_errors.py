"""What a user is told: one line, or the traceback of a bug."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.command_line.errors import PROJECT, explain, one_line_errors


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ValueError), one_line_errors(exit_code=1):
        json.loads("{")  # raised by a line that is not ours
    with pytest.raises(KeyError), one_line_errors(exit_code=1, any_origin=True):
        raise KeyError("a bug")


def test_error_of_a_data_worker_is_its_last_line(capsys: pytest.CaptureFixture) -> None:
    place = PROJECT / "datamodules" / "images.py"
    text = (
        f'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback\n  File "{place}", line 3, in batch\n'
    )
    with pytest.raises(SystemExit), one_line_errors(exit_code=1):
        exec(
            compile("raise ValueError(text)", "elsewhere/torch/_utils.py", "exec"),
            {"text": text + "ValueError: row 7: x"},
        )
    assert capsys.readouterr().err == "error: row 7: x\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/a/x"), "'runs/a/x': found no space left on the disk ("),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"), "'a/b': found no such file or folder"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "'a/b': found no permission, expected a file or"),
        (
            OSError(errno.EROFS, "Read-only file system", "a/b"),
            "'a/b': found a file system that is read-only",
        ),
        (
            OSError(errno.ENOLCK, "No locks available", "a.lock"),
            "'a.lock': found a file system without locks",
        ),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "a checkpoint cannot be written ("),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 9 vs 1"), "a checkpoint cannot be"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "the device's memory is full (CUDA out of"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNFER_RUN_DIR", "runs/mine")
    with pytest.raises(SystemExit) as stopped, one_line_errors(exit_code=1):
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 1 and line.startswith("error: ") and said in line and "Errno" not in line


def test_a_full_disk_inside_the_writing_of_an_archive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), one_line_errors(exit_code=1):
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "runs/a/last.ckpt")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 490176 vs 490064")  # noqa: B904
    assert "error: 'runs/a/last.ckpt': found no space left on the disk (" in capsys.readouterr().err


def test_what_a_library_says_about_a_file_gets_a_place(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert explain(caught.value) is None  # nobody knows which file: the traceback says more
    with pytest.raises(json.JSONDecodeError) as caught:
        place = str(PROJECT / "datamodules" / "reader.py")
        code: dict[str, Any] = {"json": json}
        exec(compile("def read(path):\n    return json.loads(path.read_text())", place, "exec"), code)
        code["read"](tmp_path / "sweep.json")
    assert f"'{tmp_path / 'sweep.json'}': found no JSON (" in str(explain(caught.value))
