from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from synfer.foundation.checkpoint_file import (
    check_finite,
    damage,
    find_checkpoint,
    last_whole_checkpoint,
    read_checkpoint,
)


class Harmful:
    def __reduce__(self) -> tuple:
        return print, ("run",)


def written(path: Path, second: int, content: object = None) -> Path:
    """Writes a checkpoint with a time of its own."""
    torch.save({"weight": torch.arange(4000.0)} if content is None else content, path)
    os.utime(path, (second, second))
    return path


def test_tensors_are_read_and_code_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "good.ckpt")
    assert torch.equal(read_checkpoint(tmp_path / "good.ckpt", "classifier")["weight"], torch.ones(2))
    (tmp_path / "good.ckpt").unlink()
    torch.save({"weight": Harmful()}, tmp_path / "harmful.ckpt")
    (tmp_path / "torn.ckpt").write_bytes(b"PK\x03\x04")
    for name in ("harmful.ckpt", "torn.ckpt"):
        with pytest.raises(ValueError, match=rf"^classifier checkpoint .*{name} cannot be read as a checkpoint: .+$"):
            read_checkpoint(tmp_path / name, "classifier")
    with pytest.raises(FileNotFoundError, match=r"classifier checkpoint: no file at .*none.ckpt"):
        read_checkpoint(tmp_path / "none.ckpt", "classifier")
    assert "run" not in capsys.readouterr().out


def test_files_of_before_the_archive_format_are_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "old.ckpt", "classifier")["weight"].sum() == 2


def test_a_run_folder_means_its_last_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"judge checkpoint '.*': found no last\.ckpt"):
        find_checkpoint(tmp_path, "judge")
    written(folder / "epoch=1.ckpt", 5)
    with pytest.raises(FileNotFoundError, match=r"found epoch=1\.ckpt, but no last\.ckpt in "):
        find_checkpoint(tmp_path, "judge")
    last = written(folder / "last.ckpt", 5)
    assert find_checkpoint(tmp_path, "judge") == find_checkpoint(folder, "judge") == last
    assert find_checkpoint(last, "judge") == last
    assert read_checkpoint(tmp_path, "judge")["weight"].shape == (4000,)


@pytest.mark.parametrize("way", ["half", "last byte", "flipped bit", "zeros", "empty"])
def test_a_damaged_last_checkpoint_names_the_newest_whole_one(way: str, tmp_path: Path) -> None:
    written(tmp_path / "oldest.ckpt", 1)
    older, last = written(tmp_path / "step=2.ckpt", 2), written(tmp_path / "last.ckpt", 3)
    assert last_whole_checkpoint(tmp_path) == last
    whole = bytearray(last.read_bytes())
    middle = len(whole) // 2
    if way == "flipped bit":  # torch reads it all the same
        whole[middle] ^= 4
    elif way == "zeros":
        whole[middle : middle + 512] = bytes(512)
    keep = {"half": middle, "last byte": len(whole) - 1, "empty": 0}.get(way, len(whole))
    last.write_bytes(whole[:keep])
    assert damage(older) is None and damage(last) is not None
    assert last_whole_checkpoint(tmp_path) == older
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be read as a checkpoint: .*whole one beside it: .*step=2"):
        read_checkpoint(last, "classifier")


def test_a_file_is_compared_with_its_checksums_once_until_it_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def look(path: Path) -> str | None:
        looks.append(path)
        return damage(path)

    monkeypatch.setattr("synfer.foundation.checkpoint_file.damage", look)
    path = written(tmp_path / "last.ckpt", 5)
    for _ in range(3):
        read_checkpoint(path, "classifier")
    assert len(looks) == 1
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 4
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_checkpoint(path, "classifier")
    young = tmp_path / "young.ckpt"
    torch.save({"weight": torch.ones(1)}, young)
    looks.clear()
    for _ in range(2):  # it may still be being written
        read_checkpoint(young, "classifier")
    assert len(looks) == 2


def test_no_whole_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"")
    assert last_whole_checkpoint(tmp_path) is None
    assert last_whole_checkpoint(tmp_path / "nowhere") is None


def test_weights_that_are_no_numbers_are_refused() -> None:
    large = torch.full((8,), 60000.0)
    check_finite({"large": large.half(), "huge": large * 5e33, "count": torch.tensor(3)}, "voter", "a.ckpt")
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match=r"^voter 'a\.ckpt': found 1 of 8 numbers in 'head\.bias' that are NaN"):
            check_finite({"good": large, "head.bias": large.index_fill(0, torch.tensor(3), value)}, "voter", "a.ckpt")
