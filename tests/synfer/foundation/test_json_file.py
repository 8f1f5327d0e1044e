from __future__ import annotations

import json
from pathlib import Path

import pytest

from synfer.foundation.file_reading import FileError
from synfer.foundation.json_file import read_json, read_json_if_whole, write_json


def test_a_missing_part_is_still_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^voter '.*x\.json': found no file '.*x\.json', expected an object$"):
        read_json(tmp_path / "x.json", "voter", "an object")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found an empty file"),
        (b'{"a": 1', "found no JSON ("),
        ('{"a": "ü"}'.encode("latin-1"), "found bytes that are no UTF-8 text (at byte 7)"),
        (json.dumps({"a": 1}).encode("utf-16"), "found bytes that are no UTF-8 text (at byte 0)"),
        (b"[1]", "found a list"),
        (b"null", "found null"),
        (b"[" * 100_000, "found values nested too deeply"),
    ],
)
def test_damaged_json(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FileError) as caught:
        read_json(tmp_path / "a.json", "record", "an object")
    line = str(caught.value)
    assert line.startswith(f"record '{tmp_path / 'a.json'}': {said}") and line.endswith(", expected an object")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_json(tmp_path / "new" / "a.json", {"name": "ü", "values": [1, None]})
    assert read_json(path, "record") == read_json_if_whole(path) == {"name": "ü", "values": [1, None]}
    with pytest.raises(TypeError):
        write_json(path, {"folder": tmp_path})
    assert read_json(path, "record")["name"] == "ü"
    assert read_json(write_json(path, {"folder": tmp_path}, default=str), "record") == {"folder": str(tmp_path)}


@pytest.mark.parametrize("content", [None, b"", b"[1]", b'{"a"', b"\xff"])
def test_a_file_that_is_not_whole_yet_is_none(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json_if_whole(path) == {}
