"""Faces of a data set brought onto a template, by its points, its boxes or a detector; none is lost without a word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers import CKPlusReader, JoinedReader, PictureListReader, RAFDBReader, RemappedReader
from datamodules.rows import alignment as alignment_module
from datamodules.rows.alignment import AlignedImages, Alignment, align_table
from datamodules.rows.face_preparation import FacePreparation
from datamodules.rows.picture_index import FOLDER_VARIABLE
from datamodules.rows.provenance import split_manifest
from synfer.faces.face_alignment import aligned, similarity
from synfer.faces.face_detector import FaceBox
from tests.fixtures.placed_faces import PlacedFace, placed_face
from tests.fixtures.published_sets import ck_plus, few_pictures, raf_db
from tests.fixtures.tiny_data import tiny_table

SIDE = 32
POINTS = [f"{axis}{number}" for number in range(5) for axis in "xy"]
BOX = ["left", "top", "right", "bottom"]
PLACES = [(0.0, 120.0, (160.0, 120.0)), (30.0, 90.0, (90.0, 130.0)), (-45.0, 150.0, (200.0, 110.0))]


class Searcher:
    """Stands where a detector stands: finds what is told beforehand, by the mean of a picture, and counts."""

    version = "1"

    def __init__(self, faces: list[PlacedFace]) -> None:
        self.boxes = {float(face.picture.mean()): face.box for face in faces}
        self.searched = 0

    def __call__(self, picture: np.ndarray) -> list[FaceBox]:
        self.searched += 1
        found = self.boxes.get(float(picture.mean()))
        return [] if found is None else [FaceBox(*found)]


@pytest.fixture(autouse=True)
def kept_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "index"))


@pytest.fixture
def faces(tmp_path: Path) -> list[PlacedFace]:
    """Nine photographs in a table, the fifth without points, and a tenth without a face."""
    placed = [placed_face(number // 3, *PLACES[number % 3]) for number in range(9)]
    lines = [",".join(["path", "label", *POINTS, *BOX])]
    for number, face in enumerate(placed):
        Image.fromarray(face.picture).save(tmp_path / f"{number}.png")
        points = [""] * 10 if number == 4 else [f"{value:.3f}" for value in face.points.ravel()]
        lines.append(",".join([f"{number}.png", ("happy", "sad", "fear")[number % 3], *points, *map(str, face.box)]))
    (tmp_path / "faces.csv").write_text("\n".join(lines))
    return placed


def reader(root: Path, boxes: bool = False, points: bool = True) -> PictureListReader:
    return PictureListReader(
        str(root),
        "faces.csv",
        label_space=["happy", "sad", "fear"],
        image_size=SIDE,
        box_columns=BOX if boxes else None,
        landmark_columns=POINTS if points else None,
    )


def read(root: Path, boxes: bool = False) -> Any:
    one = reader(root, boxes)
    one.want_landmarks()
    return one.read("train")


def whole(table: Any) -> torch.Tensor:
    pictures: torch.Tensor = table.images.batch(np.arange(len(table)))
    return pictures


def searching(faces: list[PlacedFace], monkeypatch: pytest.MonkeyPatch) -> Searcher:
    searcher = Searcher(faces)
    monkeypatch.setattr(alignment_module, "load_detector", lambda name: searcher)
    return searcher


def test_points_of_a_table_bring_a_face_to_one_place(faces: list[PlacedFace], tmp_path: Path) -> None:
    settings = Alignment("landmarks", not_found="skip")
    table = align_table(read(tmp_path), settings, SIDE)
    pictures = whole(table).float()
    assert pictures.shape == (8, 3, SIDE, SIDE) and table.sample_id.tolist()[4] == "5.png"
    for row, name in enumerate(table.sample_id.tolist()):
        face = faces[int(name[0])]
        matrix = similarity(face.points + 0.5, settings.template_points())
        assert matrix is not None
        expected = torch.from_numpy(aligned(face.picture, matrix, SIDE)).permute(2, 0, 1).float()
        assert (pictures[row] - expected).abs().mean() < 0.2  # the table rounds
    same = (pictures[0] - pictures[1]).abs()[:, 6:26, 6:26].mean()
    assert same < 8 and same < (pictures[0] - pictures[3]).abs()[:, 6:26, 6:26].mean() / 2
    assert torch.equal(table.select(np.array([2, 0])).images.batch(np.array([1])), whole(table)[:1])


def test_boxes_stand_for_points(faces: list[PlacedFace], tmp_path: Path) -> None:
    table = align_table(read(tmp_path, boxes=True), Alignment("box", margin=0.0), SIDE)
    assert isinstance(table.images, AlignedImages) and len(table) == 9
    corner = table.images.matrices[0] @ np.array([[0, 0, 1], [1, 1, 1]]).T
    width = corner[0, 1] - corner[0, 0]
    assert 120 < width < 170 and abs(corner[0].mean() - 160) < 4 and abs(corner[1].mean() - 120) < 10


def test_a_face_that_is_not_found_is_an_error_skipped_or_kept_and_always_told(
    faces: list[PlacedFace], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = read(tmp_path)
    with pytest.raises(
        ValueError, match=r"found no face in 1 of 9 pictures of split 'train' \('4.png'\).*not_found=skip"
    ):
        align_table(table, Alignment("landmarks"), SIDE)
    with caplog.at_level(logging.INFO):
        skipped = align_table(table, Alignment("landmarks", not_found="skip"), SIDE)
        kept = align_table(table, Alignment("landmarks", not_found="whole"), SIDE)
    assert len(skipped) == 8 and skipped.report.skipped == ("4.png: found no face, expected one (data.alignment)",)
    assert len(kept) == 9 and torch.equal(kept.images.batch(np.array([4])), table.images.batch(np.array([4])))
    assert "8 by landmarks of 9 faces brought onto the template; no face found in 1, left out: '4.png'" in caplog.text
    assert "no face found in 1, kept as they are: '4.png'" in caplog.text
    record = split_manifest(kept)["alignment"]
    assert record == {
        "kind": "landmarks",
        "template": "arcface",
        "margin": 0.1,
        "by": {"landmarks": 8},
        "not_found": 1,
        "policy": "whole",
    }


def test_a_detector_is_the_last_resort_and_searches_once(
    faces: list[PlacedFace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = searching(faces[:8], monkeypatch)
    table = align_table(read(tmp_path), Alignment("landmarks", detector="haar"), SIDE)
    assert searcher.searched == 1 and table.alignment is not None
    assert table.alignment["by"] == {"landmarks": 8, "detector": 1}
    for _ in range(2):  # the second time all is known
        alone = align_table(read(tmp_path), Alignment("detector", not_found="skip"), SIDE)
        assert searcher.searched == 1 + 8 and len(alone) == 8  # nobody finds the ninth
    (kept,) = (tmp_path / "index").glob("faces-*.parquet")
    kept.write_bytes(b"damaged")
    align_table(read(tmp_path), Alignment("detector", not_found="skip"), SIDE)
    assert searcher.searched == 1 + 8 + 9


def test_a_detector_takes_the_face_that_the_box_means(
    faces: list[PlacedFace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest face of a photograph may be another person's."""

    class Two:
        version = "1"

        def __call__(self, picture: np.ndarray) -> list[FaceBox]:
            return [FaceBox(0, 0, 60, 60), FaceBox(110, 70, 160, 120), FaceBox(120, 80, 200, 160)]

    monkeypatch.setattr(alignment_module, "load_detector", lambda name: Two())
    table = align_table(read(tmp_path, boxes=True), Alignment("detector", not_found="whole"), SIDE)
    assert isinstance(table.images, AlignedImages)
    middle = table.images.matrices[0] @ np.array([0.5, 0.5, 1.0])
    assert np.abs(middle - [160, 120]).max() < 8


def test_points_beside_the_picture_are_named_and_never_a_black_face(faces: list[PlacedFace], tmp_path: Path) -> None:
    table = read(tmp_path)
    landmarks = table.landmarks.copy()
    landmarks[2] += 1000
    images = align_table(replace(table, landmarks=landmarks), Alignment("landmarks", not_found="skip"), SIDE).images
    with pytest.raises(ValueError, match=r"2.png: found the face at 1\d\d\d,1\d\d\d of a picture of 320x240, expected"):
        images.batch(np.array([2]))


@few_pictures
def test_raf_db_gives_points_in_the_original_pictures(tmp_path: Path) -> None:
    root = raf_db(tmp_path / "RAF-DB")
    folder = root / "basic" / "Annotation" / "manual"
    for file in folder.iterdir():
        file.unlink()
    (folder / "train_00001_manu_attri.txt").write_text("12.5\t9\n22 9\n17.5 13\n13 18\n22 18\n0\n1\n2\n")
    (folder / "train_00002_manu_attri.txt").write_text("12.5\t9\n22 9\n")
    one = RAFDBReader(str(root), images="original", image_size=SIDE, attributes=False)
    assert one.read("train").landmarks is None
    RemappedReader(one, {"val": "test"}).want_landmarks()
    table = one.read("train")
    assert (
        table.landmarks is not None and np.isfinite(table.landmarks).all(axis=(1, 2)).tolist() == [True] + [False] * 13
    )
    np.testing.assert_allclose(table.landmarks[0], [[12.5, 9], [22, 9], [17.5, 13], [13, 18], [22, 18]])
    found = align_table(table, Alignment("landmarks", not_found="whole"), SIDE)
    assert whole(found).shape == (14, 3, SIDE, SIDE)
    by_box = align_table(table, Alignment("box"), SIDE)
    assert by_box.alignment is not None and by_box.alignment["by"] == {"box": 14}


@few_pictures
def test_ck_plus_gives_five_of_its_68_points(tmp_path: Path) -> None:
    root = ck_plus(tmp_path / "CK+")
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[30], points[48], points[54] = (10, 12), (22, 12), (16, 17), (11, 23), (21, 23)
    file = root / "Landmarks" / "S010" / "001" / "S010_001_00000005_landmarks.txt"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(f"   {x:.7e}   {y:.7e}" for x, y in points))
    one = CKPlusReader(str(root), image_size=SIDE)
    one.want_landmarks()
    tables = [one.read(split) for split in ("train", "val", "test") if one.has_split(split)]  # type: ignore[arg-type]
    known = [t.landmarks[np.isfinite(t.landmarks).all(axis=(1, 2))] for t in tables if t.landmarks is not None]
    np.testing.assert_allclose(known[0], [[[10, 12], [22, 12], [16, 17], [11, 23], [21, 23]]])


def test_joined_sets_keep_points_and_boxes(faces: list[PlacedFace], tmp_path: Path) -> None:
    joined = JoinedReader([reader(tmp_path, boxes=True), reader(tmp_path, points=False)])
    joined.want_landmarks()
    table = joined.read("train")
    assert table.landmarks is not None and np.isfinite(table.landmarks[:, 0, 0]).sum() == 8
    aligned_table = align_table(table, Alignment("box", not_found="whole"), SIDE)
    assert aligned_table.alignment is not None and aligned_table.alignment["by"] == {"box": 9}
    assert whole(aligned_table).shape == (18, 3, SIDE, SIDE)


def test_arrays_in_memory_are_searched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Middle:
        version = "1"

        def __call__(self, picture: np.ndarray) -> list[FaceBox]:
            return [FaceBox(0, 0, *picture.shape[1::-1])]

    monkeypatch.setattr(alignment_module, "load_detector", lambda name: Middle())
    for grey in (True, False):
        table = align_table(tiny_table(7, side=24, grey=grey), Alignment("detector"), 16)
        assert whole(table).shape == (7, 1 if grey else 3, 16, 16)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_sees_aligned_faces_and_keeps_them(faces: list[PlacedFace], tmp_path: Path, workers: int) -> None:
    def data(cache: str | None = None, **changes: Any) -> ExpressionDataModule:
        settings = {"kind": "landmarks", "not_found": "whole", **changes}
        module = ExpressionDataModule(
            reader(tmp_path),
            image_size=SIDE,
            batch_size=6,
            seed=0,
            val_fraction=0.34,
            num_workers=workers,
            decoded_cache=cache,
            alignment=Alignment(**settings),
        )
        module.setup("fit")
        return module

    module = data()
    expected = align_table(read(tmp_path), Alignment("landmarks", not_found="whole"), SIDE)
    place = {name: row for row, name in enumerate(expected.sample_id.tolist())}
    (batch,) = list(module.val_dataloader())
    rows = np.array([place[name] for name in batch["sample_id"]])
    assert torch.equal(batch["image"], expected.images.batch(rows))
    for _ in range(2):
        (cached,) = list(data(str(tmp_path / "cache")).val_dataloader())
        assert torch.equal(cached["image"], batch["image"])
    (wider,) = list(data(str(tmp_path / "cache"), margin=0.6).val_dataloader())
    assert not torch.equal(wider["image"], batch["image"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Alignment("eyes"), r"data\.alignment\.kind=eyes: expected one of none, landmarks, box, detector"),
        (lambda: Alignment(not_found="drop"), r"data\.alignment\.not_found=drop"),
        (lambda: Alignment(detector="mtcnn"), r"data\.alignment\.detector=mtcnn: expected haar or null"),
        (lambda: Alignment(margin=-1), r"data\.alignment: found the margin -1"),
        (lambda: Alignment("box").check_beside(0.5, True), r"data\.alignment\.synthetic=None: expected made"),
        (
            lambda: Alignment("box", synthetic="align").check_beside(0.5, False),
            r"data\.alignment\.synthetic=align: expected made where faces are made during the run",
        ),
    ],
)
def test_settings_that_cannot_be(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_alignment_needs_a_size(faces: list[PlacedFace], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.image_size=None: expected a side in pixels, or model, with"):
        ExpressionDataModule(reader(tmp_path), alignment=Alignment("box"))


def test_labelling_sees_what_training_saw(faces: list[PlacedFace], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "data: {image_size: 32, alignment: {kind: box, template: arcface, margin: 0.3, detector: null, "
        "not_found: error, synthetic: null}}"
    )
    preparation = FacePreparation.of_run(config, 32)
    assert preparation.alignment == Alignment("box", margin=0.3)
    table = align_table(read(tmp_path, boxes=True), Alignment("box", margin=0.3), 32)
    for row in (0, 4):
        face = preparation.face_in(faces[row].picture, faces[row].box)
        assert face is not None and torch.equal(face, whole(table)[row])
    config.write_text("data: {image_size: 32, alignment: {kind: none}}")
    assert FacePreparation.of_run(config, 32).alignment is None
    with pytest.raises(ValueError, match=r"not aligned, expected one trained with data\.alignment"):
        FacePreparation.of_run(config, 32).face_in(faces[0].picture, faces[0].box)
