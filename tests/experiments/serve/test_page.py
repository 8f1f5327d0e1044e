"""What the page's controls do, without a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio", reason="the page needs gradio: pip install '.[page]'")

import gradio as gr

import serve
from experiments.sample.face_maker import FaceMaker
from experiments.serve.face_readers import FaceReaders
from experiments.serve.page import _CONTROLS, FacePage, in_words
from lightning_modules.classifier import ExpressionClassifier
from synfer.faces.action_units import ACTION_UNITS
from tests.fixtures.tiny_augmenter import tiny_augmenter
from tests.fixtures.tiny_generator import NAMES, SIDE, save_checkpoint, tiny_classifier, tiny_generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator, an augmenter and two classifiers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_generator().save_trained(folder / "generator")
    tiny_augmenter().save_trained(folder / "augmenter")
    save_checkpoint(tiny_classifier(), folder / "judge.ckpt")
    save_checkpoint(tiny_classifier(seed=1), folder / "other.ckpt")
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> FacePage:
    maker = FaceMaker(folder / "generator", str(folder / "other.ckpt"))
    return FacePage(maker, FaceReaders(str(folder / "judge.ckpt"), [str(folder / "other.ckpt")], maker))


@pytest.fixture
def face(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(path)
    return path


def controls(**changes: Any) -> dict[str, Any]:
    values = ("happy", 1.0, 1, 1, 2.0, 4, 0, None, "neutral", 0.5)
    return {**dict(zip(_CONTROLS, values, strict=True)), **changes}


def pictures(html: str) -> list[str]:
    return re.findall(r'<img src="(data:image/png;base64,[^"]+)"', html)


def test_each_control_changes_the_faces(page: FacePage, face: Path) -> None:
    seen = {tuple(pictures(page.show({}, **controls())))}
    for change in (
        {"expression": "sad"},
        {"strength": 2.0},
        {"seed": 2},
        {"guidance_scale": 5.0},
        {"steps": 3},
        {"guidance_step_size": 50},
        {"layout": str(face)},
        {"count": 2},
    ):
        seen.add(tuple(pictures(page.show({}, **controls(**change)))))
    seen.add(tuple(pictures(page.show({"AU4": 1.0}, **controls()))))
    assert len(seen) == 10
    assert {len(faces) for faces in seen} == {1, 2}


def test_bars_are_the_probabilities_of_each_reader(page: FacePage, folder: Path) -> None:
    html = page.show({}, **controls())
    faces = next(page.maker.make(page.order({}, **controls())))
    for title, path in (("judge", "judge.ckpt"), ("voter other", "other.ckpt")):
        network = ExpressionClassifier.load_trained(folder / path)
        expected = network.predict_probabilities(faces.images.float() / 255)[0]
        assert f"<h4>{title}: {NAMES[int(expected.argmax())]}</h4>" in html
        for share in expected.tolist():
            assert f"width: {100 * share:.1f}%" in html
    assert html.count('class="name asked">happy') == 2


def test_sliders_moved_by_hand_are_told_from_those_that_were_put(page: FacePage) -> None:
    shown = page.drawn_units("happy", 1)
    values = [shown[name] for name in ACTION_UNITS]
    assert page.moved([round(value, 2) for value in values], shown, {}) == {}
    values[ACTION_UNITS.index("AU4")] = 0.5
    assert page.moved(values, shown, {}) == {"AU4": 0.5}
    assert page.moved([0.0] * 41, dict.fromkeys(ACTION_UNITS, 0.0), {"AU4": 0.5}) == {"AU4": 0.0}
    assert shown["AU12"] > 0.4 and shown["AU4"] == 0


def test_an_uploaded_face_is_read_as_numbers_between_zero_and_one(page: FacePage, face: Path, folder: Path) -> None:
    judge = ExpressionClassifier.load_trained(folder / "judge.ckpt")
    with Image.open(face) as picture:
        square = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    expected = judge.predict_probabilities(square)[0].tolist()
    reading = page.readers.read_file(face)[0]
    assert list(reading.probabilities.values()) == pytest.approx(expected, abs=1e-6)
    assert f"judge: {reading.chosen}" in page.read(str(face))
    with pytest.raises(ValueError, match="expected uint8"):
        page.readers.read(square)
    assert page.read(None) == ""


def test_a_grey_image_and_a_damaged_one(page: FacePage, tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(grey)
    assert "judge:" in page.read(str(grey))
    (tmp_path / "torn.png").write_bytes(b"torn")
    with pytest.raises(gr.Error, match="cannot be decoded"):
        in_words(page.read)(str(tmp_path / "torn.png"))


def test_errors_reach_the_page_as_one_line(page: FacePage, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error) as said:
        in_words(lambda: page.show({}, **controls(seed=-1)))()
    assert said.value.message == "seed: found -1, expected a whole number of at least 0"
    with pytest.raises(gr.Error) as said:
        in_words(lambda: {}["missing"])()
    assert "something went wrong" in said.value.message
    assert "KeyError" in caplog.text


def test_the_page_is_made_for_any_generator(page: FacePage, folder: Path, face: Path) -> None:
    def labels(made: FacePage) -> list[str]:
        return [str(getattr(block, "label", "")) for block in made.blocks().blocks.values()]

    assert "AU12 pulled-up lip corners" in labels(page)
    maker = FaceMaker(folder / "augmenter")
    other = FacePage(maker, FaceReaders(None))
    assert not [label for label in labels(other) if label.startswith("AU")]
    with pytest.raises(ValueError, match="from a real one"):
        other.show({}, **controls())
    assert len(pictures(other.show({}, **controls(layout=str(face))))) == 1
    with pytest.raises(ValueError, match="--judge or --voter"):
        other.read(str(face))


def test_what_cannot_be_served_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = ["--checkpoint", str(folder / "generator")]
    judge = ["--judge", str(folder / "judge.ckpt")]
    for words, said in (
        (["--checkpoint", str(folder / "nowhere")], "no such file or folder"),
        ([*generator, "--judge", str(folder / "nowhere.ckpt")], "nowhere.ckpt"),
        ([*generator, *judge, "--guide", str(folder / "judge.ckpt")], "the guide's own network"),
        ([*generator, "--port", "70000"], "--port: found 70000"),
    ):
        assert serve.main(words) == 2
        line = capsys.readouterr().err
        assert said in line and line.startswith("error: ") and line.count("\n") == 1, line


def test_a_folder_of_the_judge_is_known_as_the_guide(folder: Path, tmp_path: Path) -> None:
    ExpressionClassifier.load_trained(folder / "judge.ckpt").save_trained(tmp_path / "judge")
    maker = FaceMaker(folder / "generator", str(folder / "judge.ckpt"))
    with pytest.raises(ValueError, match="the guide's own network"):
        FaceReaders(str(tmp_path / "judge"), [], maker)
