from __future__ import annotations

import errno

import pytest

from synfer.foundation.file_reading import FileError, did_you_mean, plain_reason, reading


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("soft_label"), "found no entry 'soft_label'"),
        (AttributeError("'NoneType' object has no attribute 'get'"), "found another content"),
        (TypeError("list indices must be integers or slices, not str"), "found another content"),
        (ValueError("not enough values to unpack (expected 2, got 1)"), "found another content"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "cannot be read (permission denied)"),
        (RuntimeError("PytorchStreamReader failed"), "cannot be read (PytorchStreamReader failed)"),
        (TypeError("f() got an unexpected keyword argument 'depht'"), "found the unknown key 'depht'"),
        (TypeError("f() missing 1 required positional argument: 'names'"), "found no entry 'names'"),
        (EOFError(), "found the file cut off or overwritten"),
        (RuntimeError(), "cannot be read (RuntimeError)"),
        (MemoryError(), "found a size that does not fit into the memory"),
    ],
)
def test_pythons_own_words_never_stand_alone(error: Exception, said: str) -> None:
    assert plain_reason(error) == said
    with pytest.raises(FileError) as caught, reading("voter", "folder/a.ckpt", "a checkpoint"):
        raise error
    assert str(caught.value) == f"voter 'folder/a.ckpt': {said}, expected a checkpoint"
    assert caught.value.__cause__ is error


def test_a_line_that_names_its_file_passes_through() -> None:
    inner = FileError("generator 'b': found no UNet, expected one")
    for error in (inner, ValueError("folder/a.ckpt: found 3"), FileNotFoundError("judge 'c': no such file")):
        with pytest.raises(type(error)) as caught, reading("voter", "folder/a.ckpt", "a checkpoint"):
            raise error
        assert caught.value is error


def test_did_you_mean() -> None:
    assert did_you_mean("batchsize", ["batch_size", "reader"]) == ", did you mean batch_size?"
    assert did_you_mean("xyz", ["batch_size", "reader"]) == ""
