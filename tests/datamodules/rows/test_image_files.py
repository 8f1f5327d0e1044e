"""Which files of a folder are images."""

from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.rows.image_files import image_suffixes, names_below


def test_suffixes_are_those_of_pictures() -> None:
    known = image_suffixes()
    assert {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"} <= known
    assert not known & {".eps", ".ps", ".pdf", ".h5", ".mpg", ".txt", ".csv"}  # EPS would run another program


def test_names_are_those_below_a_folder_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path, Path(), Path("set"), Path("/")):
        files = [root / "train" / "happy" / "1.jpg", root / "train" / "a b" / "2.jpg"]
        assert names_below(files, root) == ["train/happy/1.jpg", "train/a b/2.jpg"]
    with pytest.raises(ValueError, match="elsewhere"):
        names_below([tmp_path / "here" / "1.jpg", tmp_path / "elsewhere" / "1.jpg"], tmp_path / "here")
