from __future__ import annotations

import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from synfer.faces.face_detector import FaceBox, load_detector

PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
"""A photograph that matplotlib brings with it: one face, about 130 pixels wide, around (265, 175)."""


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    pytest.importorskip("cv2", reason="needs the extra 'faces': pip install -e '.[faces]'")
    return np.array(Image.open(PORTRAIT).convert("RGB"))


def is_her_face(box: FaceBox, scale: float = 1.0, left: int = 0) -> bool:
    x, y = (box.x0 + box.x1) / 2 - left, (box.y0 + box.y1) / 2
    return abs(x / scale - 265) < 50 and abs(y / scale - 175) < 60 and 90 < (box.x1 - box.x0) / scale < 260


def test_a_face_is_found_and_lies_inside_the_picture(portrait: np.ndarray) -> None:
    (box,) = load_detector("haar")(portrait)
    assert is_her_face(box), box
    assert box.cut_from(portrait).shape == (box.y1 - box.y0, box.x1 - box.x0, 3)
    assert load_detector("haar")(portrait.mean(-1).astype(np.uint8))  # grey


def test_two_faces_are_told_apart_the_larger_first(portrait: np.ndarray) -> None:
    small = np.array(Image.fromarray(portrait).resize((portrait.shape[1] // 2, portrait.shape[0] // 2)))
    both = np.zeros((portrait.shape[0], portrait.shape[1] + small.shape[1], 3), np.uint8)
    both[: small.shape[0], : small.shape[1]] = small
    both[:, small.shape[1] :] = portrait
    first, second = load_detector("haar")(both)
    assert is_her_face(first, left=small.shape[1]) and is_her_face(second, scale=0.5)


def test_a_large_picture_is_searched_smaller_and_told_in_its_own_pixels(portrait: np.ndarray) -> None:
    large = np.array(Image.fromarray(portrait).resize((portrait.shape[1] * 4, portrait.shape[0] * 4)))
    (box,) = load_detector("haar")(large)
    assert is_her_face(box, scale=4)


def test_nothing_is_found_where_nothing_is(portrait: np.ndarray) -> None:
    detector = load_detector("haar")
    assert detector(np.full((90, 70, 3), 128, np.uint8)) == [] and detector(np.zeros((4, 900), np.uint8)) == []


def test_threads_find_the_same(portrait: np.ndarray) -> None:
    detector = load_detector("haar")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(detector, [portrait] * 6))
    assert all(boxes == found[0] for boxes in found) and len(found[0]) == 1


def test_a_box_with_a_margin_ends_where_the_picture_ends() -> None:
    picture = np.arange(100, dtype=np.uint8).reshape(10, 10)
    np.testing.assert_array_equal(FaceBox(2, 4, 6, 8).cut_from(picture), picture[4:8, 2:6])
    np.testing.assert_array_equal(FaceBox(2, 4, 6, 8).cut_from(picture, 0.75), picture[1:10, 0:9])


def test_a_missing_package_or_one_without_cascades_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"--faces: found no package 'cv2' .*pip install 'synfer\[faces\]'"):
        load_detector("haar")
    new: object = types.SimpleNamespace(__version__="5.0.0", data=types.SimpleNamespace(haarcascades=str(tmp_path)))
    monkeypatch.setitem(sys.modules, "cv2", new)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"found OpenCV 5\.0\.0 without .*, expected opencv-python-headless >= 4\.8"):
        load_detector("haar")
