from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.readers import OuluCASIAReader
from tests.fixtures.published_sets import few_pictures, oulu_casia, rows_of

pytestmark = few_pictures


@pytest.mark.parametrize("cropped", ["PreProcess Img", "PreProcess_Img", "B_PreProcess Img", "B_PreProcess_Img"])
def test_all_spellings_of_the_cropped_folder(tmp_path: Path, cropped: str) -> None:
    table = OuluCASIAReader(str(oulu_casia(tmp_path, cropped))).read("test")
    rows = rows_of(table)
    assert len(rows) == 6 * 4 and set(table.group.tolist()) == {"P001"}  # type: ignore[union-attr]
    assert rows["P001/Happiness/004.jpeg"] == "happy" and rows["P001/Happiness/000.jpeg"] == "neutral"


def test_original_pictures_and_what_is_not_there(tmp_path: Path) -> None:
    oulu_casia(tmp_path)
    assert len(OuluCASIAReader(str(tmp_path), images="original", image_size=24).read("train")) == 9 * 24
    with pytest.raises(FileNotFoundError, match=r"found no folder OriginalImg/NI/Strong in"):
        OuluCASIAReader(str(tmp_path), images="original", camera="NI")
    with pytest.raises(FileNotFoundError, match=r"found no folder PreProcess Img/VL_Acropped/Dark in"):
        OuluCASIAReader(str(tmp_path), light="Dark")
    with pytest.raises(ValueError, match=r"light: found 'dim', expected Strong or Weak or Dark"):
        OuluCASIAReader(str(tmp_path), light="dim")  # type: ignore[arg-type]


def test_an_unknown_folder_or_a_short_sequence_is_named(tmp_path: Path) -> None:
    folder = oulu_casia(tmp_path) / "PreProcess Img" / "VL_Acropped" / "Strong" / "P002"
    (folder / "Sadness").rename(folder / "Contentment")
    with pytest.raises(ValueError, match=r"P002/Contentment: unknown expression 'Contentment'"):
        OuluCASIAReader(str(tmp_path)).read("train")
    with pytest.raises(ValueError, match=r"P001/Anger: found 5 frames, expected at least 10"):
        OuluCASIAReader(str(tmp_path), last_frames=9, on_bad_sample="error").read("train")
