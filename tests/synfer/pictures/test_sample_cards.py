from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from synfer.pictures.sample_cards import SampleCard, _fitting, save_sample_cards

RED = np.full((24, 24, 3), (255, 0, 0), dtype=np.uint8)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def count(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == colour).all(axis=-1).sum())


def test_four_cards_in_a_row(tmp_path: Path) -> None:
    save_sample_cards([SampleCard(RED, "happy")] * 5, "five", "red ones", tmp_path / "new" / "cards.png")
    sheet = pixels(tmp_path / "new" / "cards.png")
    assert sheet.shape == (54 + 2 * (108 + 12 + 8), 1000, 3)
    assert count(sheet, (255, 0, 0)) == 5 * 108 * 108  # enlarged, each whole
    assert count(sheet[54 + 128 :, 500:], (255, 255, 255)) == 128 * 500  # nothing behind the fifth


def test_the_box_lies_where_it_is_in_the_whole_picture(tmp_path: Path) -> None:
    whole = np.full((80, 80, 3), 90, dtype=np.uint8)
    card = SampleCard(RED, "sad", whole=whole, box=(20, 30, 60, 70))
    save_sample_cards([card], "one", "", tmp_path / "cards.png")
    down, across = (pixels(tmp_path / "cards.png") == [230, 30, 30]).all(axis=-1).nonzero()
    left, top = 8 + 6 + (108 - 80) // 2, 54 + 6 + 108 + 6
    assert (across.min(), across.max()) == (left + 20, left + 60)
    assert (down.min(), down.max()) == (top + 30, top + 70)


def test_a_box_that_leaves_the_picture_is_cut(tmp_path: Path) -> None:
    card = SampleCard(RED, "sad", whole=np.full((40, 80, 3), 90, dtype=np.uint8), box=(-20, -5, 200, 50))
    save_sample_cards([card], "one", "", tmp_path / "cards.png")
    down, across = (pixels(tmp_path / "cards.png") == [230, 30, 30]).all(axis=-1).nonzero()
    assert across.max() - across.min() == 107 and down.max() - down.min() == 53


def test_bars_are_as_long_as_their_shares(tmp_path: Path) -> None:
    lengths = []
    for share in (0.25, 1.0):
        save_sample_cards([SampleCard(RED, "", [("", share)])], "one", "", tmp_path / "cards.png")
        _, across = (pixels(tmp_path / "cards.png") == [165, 200, 240]).all(axis=-1).nonzero()
        lengths.append(across.max() - across.min())
    assert lengths[0] == pytest.approx(lengths[1] / 4, abs=1)


def test_made_faces_have_a_frame_and_many_lines_make_a_card_higher(tmp_path: Path) -> None:
    plain, made = (SampleCard(RED, "happy", lines=["line"] * 9, is_synthetic=value) for value in (False, True))
    save_sample_cards([plain], "one", "", tmp_path / "plain.png")
    save_sample_cards([made], "one", "", tmp_path / "made.png")
    assert count(pixels(tmp_path / "plain.png"), (205, 95, 0)) == 0 < count(pixels(tmp_path / "made.png"), (205, 95, 0))
    assert pixels(tmp_path / "made.png").shape[0] == 54 + 20 + 15 * 10 + 12 + 8


def test_long_names_lose_their_beginning() -> None:
    font = ImageFont.load_default(12)
    shown = _fitting("S010/001/S010_001_00000014.png", font, 100)
    assert shown.startswith("…") and shown.endswith("00000014.png") and font.getlength(shown) <= 100
    assert _fitting("surprise and more of it", font, 60, at_end=True).startswith("surp")
    assert _fitting("short", font, 100) == "short"


def test_no_card_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no row to show"):
        save_sample_cards([], "none", "", tmp_path / "cards.png")
