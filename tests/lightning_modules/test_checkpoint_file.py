from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_modules.checkpoint_file import read_checkpoint


class Harmful:
    def __reduce__(self) -> tuple:
        return print, ("run",)


def test_tensors_are_read_and_code_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "good.ckpt")
    assert torch.equal(read_checkpoint(tmp_path / "good.ckpt", "classifier")["weight"], torch.ones(2))
    torch.save({"weight": Harmful()}, tmp_path / "harmful.ckpt")
    (tmp_path / "torn.ckpt").write_bytes(b"PK\x03\x04")
    for name in ("harmful.ckpt", "torn.ckpt"):
        with pytest.raises(ValueError, match=rf"^classifier checkpoint .*{name} cannot be read as a checkpoint: .+$"):
            read_checkpoint(tmp_path / name, "classifier")
    with pytest.raises(FileNotFoundError, match=r"classifier checkpoint: no file at .*none.ckpt"):
        read_checkpoint(tmp_path / "none.ckpt", "classifier")
    assert "run" not in capsys.readouterr().out
