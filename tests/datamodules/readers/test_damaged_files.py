"""Five hundred odd and damaged files: no crash, no label that changes in silence, every bad one named."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers import ImageFolderReader
from datamodules.rows.images import resize_square
from datamodules.rows.picture_index import FOLDER_VARIABLE
from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.drawn.draw import draw_faces
from synfer.faces.drawn.face import NUM_IDENTITY_TRAITS
from synfer.faces.expressions import LABEL_SPACES
from tests.fixtures.odd_files import DAMAGED, EITHER, ODD

BASIC7 = LABEL_SPACES["basic7"]
EACH = 16
"""Files of each kind."""

BLURRED = {"strip"}  # squeezed, and cut in the middle
ROUGH = {"animated GIF": 14.0, "palette with transparency": 14.0, "CMYK": 6.0}
"""Kinds whose colours are not quite those of the face: mean difference of a pixel, of 255."""


@dataclass(frozen=True)
class Made:
    """One file.

    Attributes:
        kind: what it is.
        expression: of its folder.
        face: that it holds or held, uint8 (32, 32, 3).
    """

    kind: str
    expression: str
    face: np.ndarray


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Made]]:
    """The folder, and id → file."""
    root, random = tmp_path_factory.mktemp("odd"), np.random.default_rng(20)
    kinds = {**ODD, **DAMAGED, **EITHER}
    count = EACH * len(kinds)
    assert count >= 500
    units = random.random((count, len(ACTION_UNITS))).astype(np.float32) * 0.5
    faces = draw_faces(units, random.random((count, NUM_IDENTITY_TRAITS)).astype(np.float32), 32)
    files = {}
    for number, face in enumerate(faces):
        kind = list(kinds)[number % len(kinds)]
        suffix, make = kinds[kind]
        expression = BASIC7[int(random.integers(7))]
        path = root / "train" / expression / f"{number:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(Image.fromarray(face), random))
        files[path.relative_to(root).as_posix()] = Made(kind, expression, face)
    return root, files


def reader(root: Path, on_bad_sample: str = "skip") -> ImageFolderReader:
    return ImageFolderReader(str(root), "basic7", image_size=32, on_bad_sample=on_bad_sample)  # type: ignore[arg-type]


def test_every_file_is_a_row_with_its_label_or_is_named(made: tuple[Path, dict[str, Made]]) -> None:
    root, files = made
    table = reader(root).read("train")
    used = dict(zip(table.sample_id.tolist(), table.label.tolist(), strict=True))
    bad = [name for name in files if name not in used]
    assert table.report.read == len(files) and len(used) + len(bad) == len(files)
    assert len(table.report.skipped) == len(bad) and not table.report.excluded
    for name in bad:
        assert sum(f"{root / name}: found " in line for line in table.report.skipped) == 1
    assert all(BASIC7[label] == files[name].expression for name, label in used.items())
    kinds = {kind: {files[name].kind for name in some} for kind, some in (("used", used), ("bad", bad))}
    assert kinds["used"] & set(DAMAGED) == set() and kinds["bad"] & set(ODD) == set()
    assert all("\n" not in line and len(line) < 400 for line in table.report.skipped)


def test_odd_files_show_their_face(made: tuple[Path, dict[str, Made]]) -> None:
    """Upright, the first of several pictures, with its own greys: nothing is taken for something else."""
    root, files = made
    table = reader(root).read("train")
    pictures = table.images.batch(np.arange(len(table))).float()
    assert pictures.shape == (len(table), 3, 32, 32)
    for row, name in enumerate(table.sample_id.tolist()):
        file = files[name]
        if file.kind not in ODD:
            continue
        face = np.array(Image.fromarray(file.face).resize((96, 32))) if file.kind == "strip" else file.face
        expected = torch.from_numpy(resize_square(face, 32)).permute(2, 0, 1).float()
        if file.kind in ("grey", "grey with alpha", "16 bits"):
            grey = np.array(Image.fromarray(file.face).convert("L"))
            expected = torch.from_numpy(grey).float().expand(3, -1, -1)
        difference = float((pictures[row] - expected).abs().mean())
        assert difference < ROUGH.get(file.kind, 8.0 if name.lower().endswith("jpg") else 5.0), (name, file.kind)


def test_bad_files_stop_a_run_with_their_number(made: tuple[Path, dict[str, Made]]) -> None:
    root, files = made
    bad = len(reader(root).read("train").report.skipped)
    with pytest.raises(ValueError, match=rf"\({bad} bad of {len(files)} samples; .*on_bad_sample=skip") as found:
        reader(root, "error").read("train")
    assert str(found.value).count(": found ") == 3 and "\n" not in str(found.value)


def test_an_index_and_a_cache_change_nothing(
    made: tuple[Path, dict[str, Made]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import time

    root, _ = made
    for path in root.rglob("*.*"):
        os.utime(path, (time.time() - 1000,) * 2)
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    plain = reader(root).read("train")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "index"))
    for _ in range(2):
        data = ExpressionDataModule(
            reader(root), image_size=32, predict_split="train", decoded_cache=str(tmp_path / "cache")
        )
        data.setup("predict")
        table = data.train_table
        assert table is not None and table.sample_id.tolist() == plain.sample_id.tolist()
        assert np.array_equal(table.label, plain.label) and np.array_equal(table.content_hash, plain.content_hash)
        assert table.report.skipped == plain.report.skipped
        rows = np.arange(len(plain))
        assert torch.equal(table.images.batch(rows), plain.images.batch(rows))


def test_a_large_promise_is_refused_before_it_is_kept(made: tuple[Path, dict[str, Made]]) -> None:
    """Also where Python's warnings are no errors: Pillow only warns up to 179 million pixels, and allocates them."""
    root, files = made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skipped = reader(root).read("train").report.skipped
    for name, file in files.items():
        if file.kind == "large PNG":
            (line,) = [line for line in skipped if str(root / name) in line]
            assert "pixels, expected at most 89,478,485" in line
