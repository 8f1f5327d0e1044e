"""When captions are written: they are stored as they come, and joined into one table at the end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from datamodules.captions.caption_table import read_caption_table, write_caption_table, written_by
from lightning_modules.captioner import Captioner


class CaptionTableWriter(Callback):
    """Writes the captions of ``predict`` into a table with ``sample_id`` and ``caption``.

    Every rank stores its captions as parts in a hidden folder beside the table; when all have, rank 0 joins them in the
    order of the rows. The same command, started again after it was stopped, writes only what is missing, on any number
    of ranks.

    Args:
        path: the table; one that ends in ``.csv`` is CSV, any other Parquet. null = ``captions.parquet`` in the run
            folder.
        every: batches between two parts: what a kill can lose.

    Attributes:
        written: captions that this rank has written in this run.

    Raises:
        ValueError: ``every`` is below 1.
    """

    def __init__(self, path: str | None = None, every: int = 20) -> None:
        if every < 1:
            raise ValueError(f"CaptionTableWriter.every: found {every}, expected at least 1")
        self.path, self.every = path, every
        self.written = 0
        self._waiting: dict[str, str] = {}
        self._next_part = 0
        self._empty = 0
        self._settings: dict[str, Any] = {}

    @property
    def counts(self) -> dict[str, int]:
        """For summary.json: captions written in this run, and how many of them are empty."""
        return {"captions": self.written, "empty_captions": self._empty}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that there is something to write.

        Raises:
            ValueError: the model is no :class:`Captioner`.
        """
        if stage == "predict" and not isinstance(pl_module, Captioner):
            raise ValueError(
                f"CaptionTableWriter: found the model {type(pl_module).__name__}, expected "
                "lightning_modules.captioner.Captioner"
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds what an earlier run has written, so that it is not written again.

        Raises:
            ValueError: captions of other settings, or of nobody knows whom, are there already.
        """
        assert isinstance(pl_module, Captioner)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._settings = {**pl_module.settings(), "image_size": data.image_size, "split": data.predict_split}
        self._waiting, self.written, self._empty = {}, 0, 0
        parts = self._part_paths(trainer)
        for path in [*parts, *([self._path(trainer)] if self._path(trainer).exists() else [])]:
            self._check_same_writer(path)
        pl_module.done = {name for part in parts for name in _all_captions(part)}
        if self._path(trainer).exists():
            pl_module.done |= set(_all_captions(self._path(trainer)))
        own = [int(part.stem.split("-")[1]) for part in parts if part.stem.startswith(f"{trainer.global_rank}-")]
        self._next_part = max(own, default=-1) + 1
        trainer.strategy.barrier("captions found")  # before any rank adds parts
        if pl_module.done:
            rank_zero_info(f"captions: {len(pl_module.done)} are written already")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the captions of one batch, and stores them from time to time."""
        self._waiting.update(zip(outputs["sample_id"], outputs["caption"], strict=True))
        if (batch_idx + 1) % self.every == 0:
            self._store(trainer)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stores the rest, and on rank 0 the whole.

        Raises:
            ValueError: rows without a caption; what has been written stays for the next run.
        """
        self._store(trainer)
        trainer.strategy.barrier("captions written")
        if not trainer.is_global_zero:
            return
        path = self._path(trainer)
        found = _all_captions(path) if path.exists() else {}
        for part in self._part_paths(trainer):
            found.update(_all_captions(part))
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        names = getattr(data, f"{data.predict_split}_table").sample_id.tolist()
        lost = [name for name in names if name not in found]
        if lost:
            raise ValueError(
                f"captions: found none of '{lost[0]}' ({len(lost)} of {len(names)} rows), expected all (was "
                "trainer.limit_predict_batches set? the same command writes the others)"
            )
        write_caption_table(path, {name: found[name] for name in names}, self._settings)
        shutil.rmtree(self._folder(trainer), ignore_errors=True)
        empty = sum(not found[name] for name in names)
        rank_zero_info(
            f"captions of {len(names)} rows: {path}" + (f"; {empty} are empty, and no caption then" if empty else "")
        )

    def _store(self, trainer: Trainer) -> None:
        if self._waiting:
            part = self._folder(trainer) / f"{trainer.global_rank}-{self._next_part:06}.parquet"
            write_caption_table(part, self._waiting, self._settings)
            self._next_part += 1
            self.written += len(self._waiting)
            self._empty += sum(not caption for caption in self._waiting.values())
            self._waiting = {}

    def _check_same_writer(self, path: Path) -> None:
        found = {} if path.suffix.lower() == ".csv" else written_by(path)
        other = [name for name, value in self._settings.items() if name not in found or found[name] != value]
        if other:
            what = f"{other[0]}={found[other[0]]}" if other[0] in found else "nothing of what wrote them"
            raise ValueError(
                f"captions '{path}': found captions with {what}, expected {other[0]}={self._settings[other[0]]} to go "
                "on with them (or another CaptionTableWriter.path)"
            )

    def _path(self, trainer: Trainer) -> Path:
        return Path(self.path) if self.path else Path(trainer.default_root_dir) / "captions.parquet"

    def _folder(self, trainer: Trainer) -> Path:
        return self._path(trainer).with_name(f".{self._path(trainer).name}-parts")

    def _part_paths(self, trainer: Trainer) -> list[Path]:
        return sorted(self._folder(trainer).glob("[0-9]*.parquet"))


def _all_captions(path: Path) -> dict[str, str]:
    return read_caption_table(path, with_empty=True)
