from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.rows.source_faces import TrainingSources
from lightning_modules.augmenter_pictures import save_latent_pictures
from tests.fixtures.tiny_data import tiny_table
from tests.fixtures.tiny_generator import NAMES, SIDE
from tests.synfer.synthesis.vae_gan.test_synthesiser import sources, synthesiser


def test_three_pictures_with_a_row_per_expression(tmp_path: Path) -> None:
    save_latent_pictures(synthesiser(), sources(), NAMES, 1, tmp_path)
    sizes = {path.name: Image.open(path).size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"reconstructions.png", "latent_walk.png", "strength.png"}
    zoomed = SIDE * 6
    assert sizes["latent_walk.png"] == (110 + 9 * zoomed, 3 * zoomed)
    assert sizes["strength.png"][0] == 110 + 7 * zoomed and sizes["reconstructions.png"][0] == 110 + 8 * zoomed + 14


def test_an_expression_without_faces_has_no_row(tmp_path: Path) -> None:
    table = tiny_table(30, side=SIDE, label_space=NAMES)
    few = TrainingSources(table.select(np.flatnonzero(table.label != NAMES.index("sad"))), [], "source face")
    made = synthesiser(["happy", "neutral"])
    made.use_sources(few, ["happy", "neutral"])
    save_latent_pictures(made, few, NAMES, 1, tmp_path)
    assert Image.open(tmp_path / "latent_walk.png").size[1] == 2 * SIDE * 6
