from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.readers import DrawnReader
from lightning_modules.action_unit_estimator import ActionUnitEstimator
from synfer.networks.au_estimator import ActionUnitNetwork
from tests.fixtures.tiny_data import TinyReader, tiny_table

UNITS = ["AU26", "AU5"]
BACKBONE: dict[str, Any] = {
    "backbone": "ese_vovnet19b_slim",
    "backbone_kwargs": {
        "stem_chs": [8, 8, 16],
        "stage_conv_chs": [16, 16, 24, 32],
        "stage_out_chs": [16, 32, 48, 64],
        "layer_per_block": 2,
        "attn": "",
        "residual": False,
    },
}


def trainer(folder: Path, **changes: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(accelerator="cpu", devices=1, num_sanity_val_steps=0, default_root_dir=folder, **quiet, **changes)


def test_learns_what_drawn_faces_do_and_leaves_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    count = {"train": 288, "val": 96, "test": 8}
    reader = DrawnReader(count, image_size=32, label_space=["neutral", "surprise"])
    off = Augmentation(enabled=False)
    data = ExpressionDataModule(reader, batch_size=48, eval_batch_size=48, seed=0, augmentation=off)
    # Both lie at 0 or well above 0.25; claiming both for every face would score 0.67.
    module = ActionUnitEstimator(UNITS, image_size=32, learning_rate=5e-3, present_above=0.25, **BACKBONE)
    run = trainer(tmp_path, max_epochs=10)
    run.fit(module, datamodule=data)
    assert float(run.callback_metrics["val/au_f1_mean"]) > 0.75
    assert {f"val/au_f1/{name}" for name in UNITS} <= set(run.callback_metrics)
    estimator, table = ActionUnitNetwork.load(tmp_path / "au_estimator"), reader.read("val")
    assert table.au is not None
    seen = estimator(table.images.batch(np.arange(96)).float() / 255)
    jaw_drop = torch.from_numpy(table.au[:, list(table.au_names).index("AU26")])
    assert seen[jaw_drop > 0.5, 0].mean() > seen[jaw_drop == 0, 0].mean() + 0.2


def test_faces_without_action_units_are_refused(tmp_path: Path) -> None:
    tables = {split: tiny_table(8, split, 32) for split in ("train", "val")}
    module = ActionUnitEstimator(UNITS, image_size=32, **BACKBONE)
    with pytest.raises(ValueError, match="AU estimator: found no AU26, AU5… in the training faces"):
        trainer(tmp_path, max_epochs=1).fit(module, datamodule=ExpressionDataModule(TinyReader(**tables), batch_size=4))


def test_an_unknown_action_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown action unit 'AU99'"):
        ActionUnitEstimator(["AU12", "AU99"])
