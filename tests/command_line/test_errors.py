"""What a user is told: one line, or the traceback of a bug."""

from __future__ import annotations

import json

import pytest

from command_line.errors import PROJECT, one_line_errors


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
