"""Faces that are found, in pictures and in videos."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.rows.images import BadImageError
from datamodules.rows.video_frames import video_frames
from experiments.label.label_command import main
from lightning_modules.labeller import Labeller
from tests.fixtures.face_pictures import save_noise, save_run
from tests.synfer.faces.test_haar_detector import PORTRAIT, is_her_face

pytest.importorskip("cv2", reason="needs the extra 'faces': pip install -e '.[faces]'")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("classifier") / "run")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames, each of one colour that tells its number."""
    import cv2

    path = tmp_path_factory.mktemp("video") / "twelve.avi"
    writer: Any = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for number in range(12):
        writer.write(np.full((48, 64, 3), (0, 0, 20 * number), np.uint8))  # blue, green, red
    writer.release()
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_found_faces_have_a_box_and_pictures_without_one_a_row(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    save_noise(folder / "a.png", 60, 60)
    shutil.copy(PORTRAIT, folder / "b.jpg")
    out = tmp_path / "labels.csv"
    words = [str(folder), "--checkpoint", str(run), "--out", str(out), "--faces", "--margin", "0.2"]
    assert main(words) == 0
    empty, found = rows_of(out)
    assert empty["path"].endswith("a.png") and set(empty.values()) == {empty["path"], ""}
    assert found["face"] == "0"
    from synfer.faces.face_detector import FaceBox

    box = FaceBox(*(int(found[side]) for side in ("x0", "y0", "x1", "y1")))
    assert is_her_face(box)
    crop = box.cut_from(np.array(Image.open(PORTRAIT).convert("RGB")), 0.2)
    expected = Labeller.load_trained(run).label(crop)[0]
    assert float(found["happy"]) == pytest.approx(expected.probabilities["happy"], abs=1e-6)
    assert found["label"] == expected.label
    assert "1 faces in 2 pictures" in (said := capsys.readouterr().out) and "1 without a face" in said


def test_the_frames_of_a_video_are_rgb_and_numbered(video: Path) -> None:
    frames = list(video_frames(str(video), every=5))
    assert [number for number, _ in frames] == [0, 5, 10]
    for number, picture in frames:
        assert picture.shape == (48, 64, 3)
        assert picture[20, 20].tolist() == pytest.approx([20 * number, 0, 0], abs=6)


def test_a_video_is_labelled_frame_by_frame(run: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    save_noise(tmp_path / "a.png", 16, 16)
    given = [str(tmp_path / "a.png"), str(video)]
    words = [*given, "--checkpoint", str(run), "--out", str(out), "--every", "4", "--max_frames", "2"]
    assert main(words) == 0
    assert [(Path(row["path"]).name, row["frame"]) for row in rows_of(out)] == [
        ("a.png", ""),
        ("twelve.avi", "0"),
        ("twelve.avi", "4"),
    ]


def test_a_broken_video_is_named_and_what_it_had_is_labelled(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.mp4").write_bytes(b"no video" * 100)
    words = ["--checkpoint", str(run), "--out", str(tmp_path / "labels.csv")]
    assert main([str(tmp_path / "none.mp4"), *words]) == 2
    line = capsys.readouterr().err
    assert "none.mp4: found no video that can be opened" in line and line.count("\n") == 1
    assert main([str(tmp_path / "none.mp4"), str(video), *words]) == 1
    assert len(rows_of(tmp_path / "labels.csv")) == 12
    assert "cannot be used" in capsys.readouterr().err


def test_a_camera_that_is_not_there_is_one_line(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["camera:77", "--checkpoint", str(run), "--out", str(tmp_path / "labels.csv")]) == 2
    line = capfd.readouterr().err
    assert "'camera:77': found no camera of this number" in line and line.count("\n") == 1, line


def test_without_the_package_a_video_and_a_camera_are_one_line(
    run: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    for given in (str(video), "camera:0"):
        assert main([given, "--checkpoint", str(run), "--out", str(tmp_path / "labels.csv")]) == 2
        line = capsys.readouterr().err
        assert f"'{given}': found no package 'cv2'" in line and "'.[faces]'" in line and line.count("\n") == 1
    with pytest.raises(ValueError, match="found no package 'cv2'"):
        next(video_frames(str(video)))


def test_a_video_that_ends_early_says_so(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    class Promising:
        def __init__(self, name: str) -> None:
            self.real = cv2.VideoCapture(name)

        def get(self, what: int) -> float:
            return 100.0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    real = Promising(str(video))
    monkeypatch.setattr("datamodules.rows.video_frames.optional_package", lambda *_: _Cv2(real))
    frames = video_frames(str(video))
    with pytest.raises(BadImageError, match="found 12 of 100 frames, expected a whole video"):
        assert len([next(frames) for _ in range(13)]) < 13


class _Cv2:
    """OpenCV with a capture of one's own."""

    def __init__(self, capture: Any) -> None:
        self._capture = capture

    def VideoCapture(self, name: str) -> Any:
        return self._capture

    def __getattr__(self, name: str) -> Any:
        import cv2

        return getattr(cv2, name)


def test_a_classifier_of_aligned_faces_gets_aligned_faces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"kind": "detector", "template": "arcface", "margin": 0.3, "not_found": "error"}
    run = save_run(tmp_path / "run", data={"image_size": 32, "alignment": settings})
    save_noise(tmp_path / "pictures" / "a.png", 60, 60)
    shutil.copy(PORTRAIT, tmp_path / "pictures" / "b.jpg")
    words = [str(tmp_path / "pictures"), "--checkpoint", str(run), "--overwrite"]
    out = tmp_path / "labels.csv"
    assert main([*words, "--out", str(out)]) == 0
    empty, found = rows_of(out)
    assert empty["label"] == ""
    labeller = Labeller.load_trained(run)
    box = tuple(int(found[side]) for side in ("x0", "y0", "x1", "y1"))
    face = labeller.prepare.face_in(np.array(Image.open(PORTRAIT).convert("RGB")), box)  # type: ignore[arg-type]
    assert face is not None
    expected = labeller.named(labeller.probabilities([face])[0])
    assert float(found["happy"]) == pytest.approx(expected.probabilities["happy"], abs=1e-6)
    assert main([*words, "--out", str(out), "--crops"]) == 0
    assert [row["x0"] for row in rows_of(out)] == ["", ""] and all(row["label"] for row in rows_of(out))
    assert main([*words, "--out", str(out), "--margin", "0.2"]) == 2
    assert "--margin: found 0.2 for a classifier trained on aligned faces" in capsys.readouterr().err
