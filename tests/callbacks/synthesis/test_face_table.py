"""A few faces of each expression, with what was asked and what the vote said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from PIL import Image

from callbacks.recording.wandb_run import WandbRun
from callbacks.synthesis.face_table import FaceTable, voter_name
from callbacks.synthesis.online_synthesis import OnlineSynthesis
from callbacks.synthesis.pseudo_labeller import PseudoLabeller
from datamodules.expression_data_module import ExpressionDataModule
from synfer.synthesis.request import SamplingSettings
from tests.fixtures.tiny_data import TinyReader, tiny_table
from tests.fixtures.tiny_generator import NAMES as TINY_NAMES
from tests.fixtures.tiny_generator import SIDE, save_checkpoint, tiny_classifier, tiny_generator

NAMES = ("neutral", "happy", "sad")


def finished(first_id: int, count: int = 6) -> Any:
    """What a hook sees of finished faces: the first voter says happy to all, and sad faces are discarded."""
    label = torch.arange(count) % 3
    says_happy = torch.tensor([0.1, 0.7, 0.2]).expand(count, 3)
    return SimpleNamespace(
        images=torch.full((count, 3, 8, 8), first_id, dtype=torch.uint8),
        label=label,
        label_space=NAMES,
        soft_label=says_happy.clone(),
        kept=label != 2,
        votes={"runs/judge/checkpoints/last.ckpt": says_happy},
        request=SimpleNamespace(sample_ids=tuple(range(first_id, first_id + count))),
    )


class Logged(WandbRun):
    """Keeps what would be sent."""

    def log_faces(self, key: str, faces: Any, columns: Any) -> None:
        self.table = {"key": key, "faces": faces, **columns}


def shown(table: FaceTable, folder: Path, is_first_rank: bool = True, error: BaseException | None = None) -> Logged:
    logger = Logged(folder)
    trainer: Any = SimpleNamespace(default_root_dir=folder, loggers=[logger], is_global_zero=is_first_rank)
    table.setup(trainer, None, "fit")  # type: ignore[arg-type]
    for first in range(0, 120, 6):
        table.on_faces(finished(first))
    if error is None:
        table.on_train_end(trainer, None)  # type: ignore[arg-type]
    else:
        table.on_exception(trainer, None, error)  # type: ignore[arg-type]
    return logger


def test_rows(tmp_path: Path) -> None:
    table = shown(FaceTable(12), tmp_path).table
    assert table["key"] == "synthesis/faces"
    assert table["intended"] == [name for name in NAMES for _ in range(4)]
    assert table["vote of judge"] == ["happy 0.70"] * 12
    assert table["final"] == ["happy"] * 12 and set(table["confidence"]) == {0.7}
    assert table["kept"] == [True] * 8 + [False] * 4
    # Each face is the one that its id says, from the whole run and not from its beginning alone.
    ids = table["sample_id"]
    assert len(set(ids)) == 12 and max(ids) > 60
    assert all(int(face[0, 0, 0]) == number - number % 6 for face, number in zip(table["faces"], ids, strict=True))
    picture = np.asarray(Image.open(tmp_path / "samples" / "synthetic_faces.png"))
    assert picture.shape[0] > 3 * 90 and picture.shape[1] > 4 * 90


def test_a_stopped_run_shows_its_faces(tmp_path: Path) -> None:
    assert len(shown(FaceTable(12), tmp_path, error=KeyboardInterrupt()).table["kept"]) == 12
    assert (tmp_path / "samples" / "synthetic_faces.png").is_file()


def test_other_ranks_show_nothing(tmp_path: Path) -> None:
    assert not hasattr(shown(FaceTable(), tmp_path, is_first_rank=False), "table")
    assert not (tmp_path / "samples").exists()


def test_nothing_made_nothing_shown(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(default_root_dir=tmp_path, loggers=[], is_global_zero=True)
    FaceTable().on_train_end(trainer, None)  # type: ignore[arg-type]
    assert not (tmp_path / "samples").exists()


def test_names_of_voters() -> None:
    assert voter_name("runs/judge-ferplus/checkpoints/last.ckpt") == "judge-ferplus"
    assert voter_name("voters/clip") == "clip"
    assert voter_name("logits.json") == "logits"


def test_faces_of_a_real_fit(tmp_path: Path) -> None:
    generator = save_checkpoint(tiny_generator(), tmp_path / "generator.ckpt")
    voter = save_checkpoint(tiny_classifier(TINY_NAMES), tmp_path / "voter.ckpt")
    data = ExpressionDataModule(
        TinyReader(
            **{split: tiny_table(16, split, SIDE, label_space=TINY_NAMES) for split in ("train", "val", "test")}
        ),
        batch_size=8,
        seed=0,
        synthetic_ratio=0.5,
    )
    fast = SamplingSettings(num_steps=1, guidance_scale=1.0)
    logger = Logged(tmp_path)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[
            OnlineSynthesis(True, str(generator), batch_size=6, sampling=fast),
            PseudoLabeller(True, [str(voter)]),
            FaceTable(6),
        ],
    )
    trainer.loggers = [logger]
    logger.log_metrics = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    trainer.fit(tiny_classifier(TINY_NAMES), datamodule=data)
    assert logger.table["intended"] == [name for name in TINY_NAMES for _ in range(2)]
    assert all(vote.split()[0] in TINY_NAMES for vote in logger.table["vote of " + tmp_path.name])
    assert (tmp_path / "samples" / "synthetic_faces.png").is_file()
