"""One shape of a face: whoever resizes it cuts the centre out, and nobody squashes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from callbacks.synthesis.layout_initialisation import LayoutInitialisation
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers.image_folder import ImageFolderReader
from datamodules.rows.near_duplicates import thumbnails
from datamodules.rows.sample_table import ArrayImages
from synfer.faces.face_shape import central_part, cut_faces, resize_faces
from synfer.networks.au_estimator import ActionUnitNetwork
from synfer.networks.external_classifiers import ClipVoter, TimmVoter
from synfer.networks.feature_extractor import ClassifierFeatures
from synfer.pictures.captioned_grid import FaceColumns, save_captioned_grid
from tests.fixtures.outside_models import save_clip, save_timm
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import NAMES, SIDE, request_for, state_for, tiny_classifier, tiny_generator

TINY: dict[str, Any] = {
    "backbone": "resnet10t",
    "backbone_kwargs": {"channels": [4, 4, 8, 8], "stem_width": 4},
    "image_size": 24,
}


def disc(height: int, width: int) -> np.ndarray:
    """Returns a picture with a bright disc that just fills the height and the central square of the width."""
    y, x = np.mgrid[:height, :width]
    radius = min(height, width) / 2
    inside = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 < (0.9 * radius) ** 2
    return np.where(inside, 255, 0).astype(np.uint8)


def _extent(image: Tensor) -> tuple[int, int]:
    """Returns height and width of what is bright."""
    bright = image.float()[0, 0] > image.float().max() / 2
    return int(bright.any(1).sum()), int(bright.any(0).sum())


@pytest.mark.parametrize(("height", "width"), [(48, 72), (72, 48), (49, 48), (48, 49), (47, 100)])
def test_the_central_square_is_kept(height: int, width: int) -> None:
    rows, columns = central_part(height, width, (1, 1))
    side = min(height, width)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (side, side)
    assert abs((height - rows.stop) - rows.start) <= 1 and abs((width - columns.stop) - columns.start) <= 1
    found = resize_faces(torch.from_numpy(disc(height, width))[None, None], 24)
    assert found.shape == (1, 1, 24, 24) and abs(_extent(found)[0] - _extent(found)[1]) <= 1


def test_squares_are_resized_as_ever() -> None:
    image = torch.rand(2, 3, 48, 48)
    assert torch.equal(resize_faces(image, 24), F.interpolate(image, (24, 24), mode="bilinear", antialias=True))
    assert resize_faces(image, 48) is image
    assert cut_faces(image).data_ptr() == image.data_ptr() and cut_faces(image).shape == image.shape
    wide = resize_faces(image, (24, 48))
    assert wide.shape == (2, 3, 24, 48) and torch.equal(wide, image[..., 12:36, :])
    pictures = (image * 255).byte()
    assert torch.equal(resize_faces(pictures, 20), F.interpolate(pictures, (20, 20), mode="bilinear", antialias=True))


def test_reader_and_data_module_cut_the_same_part(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("happy", "sad"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(disc(48, 72)).save(tmp_path / split / name / "0.png")
    batches = []
    for sizes in ((24, None), (None, 24), (24, 24)):
        reader = ImageFolderReader(str(tmp_path), image_size=sizes[0])
        module = ExpressionDataModule(reader, image_size=sizes[1], batch_size=1)
        module.setup("fit")
        for loader in (module.train_dataloader(), module.val_dataloader()):
            batches.append(next(iter(loader))["image"])
    for batch in batches:
        assert batch.shape[1:] == (3, 24, 24) and _extent(batch)[0] == _extent(batch)[1]
        assert (batch.int() - batches[0].int()).abs().max() <= 2  # Pillow and torch round apart


@pytest.mark.parametrize("kind", ["classifier", "timm voter", "CLIP voter", "AU estimator", "features"])
def test_networks_see_the_central_square(tmp_path: Path, kind: str) -> None:
    network: Any
    if kind == "classifier":
        network = tiny_classifier()
    elif kind == "timm voter":
        network = TimmVoter(save_timm(tmp_path / "vit", NAMES))
    elif kind == "CLIP voter":
        network = ClipVoter(save_clip(tmp_path / "clip"))
    elif kind == "AU estimator":
        network = ActionUnitNetwork(["AU1", "AU12"], **TINY)
    else:
        network = ClassifierFeatures(tiny_classifier(), "x")
    wide = torch.rand(2, 3, 24, 40)
    with torch.no_grad():
        assert torch.equal(network.eval()(wide), network(wide[..., 8:32]))


def test_a_layout_source_is_cut() -> None:
    generator, table = tiny_generator(), tiny_table(30, side=SIDE, label_space=NAMES)
    wide = tiny_table(30, side=2 * SIDE).images.array[:, :SIDE]  # type: ignore[attr-defined]
    latents = []
    for array in (wide, wide[:, :, SIDE // 2 : SIDE // 2 + SIDE]):
        layout = LayoutInitialisation(enabled=True, num_inverted=2)
        layout.use_table(replace(table, images=ArrayImages(array)), [])
        state = state_for(generator, request_for(num_steps=4))
        layout.on_denoising_start(state)
        latents.append(state.latents)
    assert torch.equal(*latents)


def test_thumbnails_and_captioned_grids_are_not_squashed(tmp_path: Path) -> None:
    square, wide = disc(48, 48), disc(48, 72)
    near = thumbnails(ArrayImages(square[None])) @ thumbnails(ArrayImages(wide[None])).T
    assert float(near) == pytest.approx(1)
    pictures = []
    for face in (np.ascontiguousarray(wide[:, 12:60]), wide):
        faces = torch.from_numpy(face)[None, None].expand(1, 3, -1, -1)
        save_captioned_grid([FaceColumns("", [faces], [[""]])], [""], tmp_path / "grid.png")
        pictures.append(np.array(Image.open(tmp_path / "grid.png")))
    assert np.array_equal(*pictures)


def test_the_data_module_cuts_wide_pictures_of_any_reader() -> None:
    table, array = tiny_table(14), tiny_table(14, side=16).images.array[:, :8]  # type: ignore[attr-defined]
    reader = TinyReader(train=replace(table, images=ArrayImages(array)), val=tiny_table(7, "val"))
    module = ExpressionDataModule(reader, image_size=8, batch_size=14)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    for name, image in zip(batch["sample_id"], batch["image"], strict=True):
        assert torch.equal(image[0], torch.from_numpy(array[int(name.split("-")[1])][:, 4:12]))


def test_nobody_else_resizes_faces() -> None:
    """Where something else than a face, or a face that is square by its making, is resized, its file stands here."""
    known = {"face_shape.py", "annotator_head.py", "backbone_with_maps.py", "near_duplicates.py", "online_synthesis.py"}
    root = Path(__file__).parents[3]
    folders = ("callbacks", "datamodules", "lightning_modules")
    sources = [path for folder in folders for path in (root / folder).rglob("*.py")]
    others = [path.name for path in sources if "interpolate(" in path.read_text() and path.name not in known]
    assert not others, "expected synfer.faces.face_shape.resize_faces there, which does not squash"
