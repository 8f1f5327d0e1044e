"""Pictures of runs, made small; those that cannot be read are named."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.compare import sample_strips as module
from experiments.compare.groups import compare
from experiments.compare.run_folders import read_run_folders
from experiments.compare.sample_strips import newest_of_each_kind, sample_strips
from tests.fixtures.synthetic_runs import write_run


def strips_of(folder: Path) -> tuple[list[module.Strip], list[str]]:
    runs, _ = read_run_folders([folder])
    return sample_strips(compare(runs, "val/accuracy").groups)


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (900, 300)) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], len(mode)), np.uint8), mode).save(path)


def test_newest_of_each_kind() -> None:
    names = ["grid-step0000900.png", "grid-step0010000.png", "confusion_val.png", "grid-step0002000.png"]
    assert [path.name for path in newest_of_each_kind(map(Path, names))] == [
        "confusion_val.png",
        "grid-step0010000.png",
    ]


def test_pictures_are_small_and_their_ground_is_white(tmp_path: Path) -> None:
    picture(write_run(tmp_path / "a") / "samples" / "test.png", "RGBA")
    write_run(tmp_path / "b", 0.5)
    strips, warnings = strips_of(tmp_path)
    assert len(strips) == 1 and not warnings  # the group without pictures has no strip
    ((name, address, width, height),) = strips[0].pictures
    assert (name, width, height) == ("test.png", 420, 140)
    with Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/jpeg;base64,")))) as shown:
        assert shown.size == (420, 140) and shown.getpixel((5, 5)) == (255, 255, 255)  # it was fully transparent


def test_an_unreadable_picture_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    samples = write_run(tmp_path / "a") / "samples"
    picture(samples / "good.png")
    (samples / "bad.png").write_bytes(b"not a picture")
    strips, warnings = strips_of(tmp_path)
    assert [name for name, *_ in strips[0].pictures] == ["good.png"]
    assert len(warnings) == 1 and "bad.png' cannot be read" in warnings[0]


def test_no_more_than_a_report_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PICTURES", 2)
    for ratio in (0.0, 0.5, 1.0):
        picture(write_run(tmp_path / str(ratio), ratio) / "samples" / "test.png")
    strips, warnings = strips_of(tmp_path)
    assert len(strips) == 2 and warnings == ["pictures left out of the report, which holds 2 at most: 1"]
