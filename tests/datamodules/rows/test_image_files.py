"""Which files of a folder are images."""

from __future__ import annotations

from datamodules.rows.image_files import image_suffixes


def test_suffixes_are_those_of_pictures() -> None:
    known = image_suffixes()
    assert {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"} <= known
    assert not known & {".eps", ".ps", ".pdf", ".h5", ".mpg", ".txt", ".csv"}  # EPS would run another program
