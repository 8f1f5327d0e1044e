"""When faces are made ahead: the synthetic set is written."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from callbacks.recording.run_progress import display_of
from callbacks.synthesis.face_sentence import face_sentence
from callbacks.synthesis.near_copy_count import NearCopyCount
from datamodules.rows.images import decode_image
from datamodules.synthetic.shard_stream import SHARD_FACES, ShardStream
from datamodules.synthetic.synthetic_manifest import MANIFEST, SET_FOLDER, named_files, shard_paths
from datamodules.synthetic.synthetic_rows import SyntheticRows, table_of
from datamodules.synthetic.synthetic_shards import (
    LOCK,
    TAUGHT_BY,
    begin_set,
    check_record,
    finished_indices,
    first_rows,
    has_text_labels,
    write_card,
)
from synfer.faces.action_units import ACTION_UNITS
from synfer.foundation.background_work import BackgroundWork
from synfer.foundation.folder_lock import NoLocksError, RanksLock
from synfer.foundation.on_rank_zero import on_rank_zero_for_all
from synfer.synthesis.conditions import sample_name
from synfer.synthesis.faces import Faces
from synfer.synthesis.hooks import active_hooks
from synfer.synthesis.synthesiser import Synthesiser

_GRID_COLUMNS = 8


class SyntheticSetWriter(Callback):
    """Writes the faces of ``predict`` as Parquet shards with a card (contract C6).

    Each rank writes its faces while it makes the next ones: a thread of its own encodes them in their order and closes
    a shard when it is full, or with the first batch that comes ``shard_seconds`` after the last shard. So a batch that
    takes minutes is on the disk at once, and quick ones share a shard; a signal, an error and the end write what
    waits, and a kill loses ``shard_seconds`` of work and three batches at most, which the next start makes again.

    Started again, the set goes on with the faces that are missing, whatever the number of ranks and the batch size
    then; with other weights, settings or seed it refuses. A larger ``data.synthesis_count`` makes a finished set
    longer. One predict at a time writes a set: all its ranks hold a lock, and the manifest says how many faces were
    planned and what each shard holds.

    Args:
        path: folder of the set; null = ``synthetic_set`` in the run folder.
        shard_faces: rows of a shard at most, ≥ 1; one of 256 MB is closed earlier.
        shard_seconds: least time between two shards of a rank, ≥ 0, unless one is full; 0 = a shard per batch. The
            first batch of a start is a shard of its own, so that every start gets somewhere.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, path: str | None = None, shard_faces: int = SHARD_FACES, shard_seconds: float = 10.0) -> None:
        if shard_faces < 1:
            raise ValueError(f"SyntheticSetWriter.shard_faces: found {shard_faces}, expected at least 1")
        if not shard_seconds >= 0:
            raise ValueError(f"SyntheticSetWriter.shard_seconds: found {shard_seconds}, expected at least 0")
        self.path, self.shard_faces, self.shard_seconds = path, shard_faces, shard_seconds
        self._stream: ShardStream | None = None
        self._work: BackgroundWork | None = None
        self._copies = NearCopyCount()
        self._lock: RanksLock | None = None
        self._text_labels = False

    @property
    def counts(self) -> dict[str, int]:
        """Faces written by this rank, those thrown away, and near copies in the whole set: for summary.json."""
        written, kept = (0, 0) if self._stream is None else (self._stream.written, self._stream.kept)
        return {"generated": written, "discarded": written - kept, **self._copies.counts}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out what is already there.

        Raises:
            ValueError: the model is no generator, real faces as data, another predict at work on the set, a set that is
                damaged, or fewer faces left than ranks.
        """
        if stage != "predict":
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, Synthesiser) or datamodule.predict_split != "synthesis":
            raise ValueError(
                f"SyntheticSetWriter: found the model {type(pl_module).__name__} and data.predict_split="
                f"{datamodule.predict_split}, expected a model that makes faces, and synthesis"
            )
        folder = self._folder(trainer)
        if not folder.exists():
            _refuse_idle_ranks(datamodule.synthesis_count, trainer.world_size)  # before it does
        # Rank 0 looks for all, before any of them writes: a large set takes minutes to read.
        done = datamodule.synthesis_done = on_rank_zero_for_all(lambda: self._look(folder))
        if self._lock is None:
            self._lock = RanksLock(folder / LOCK)
            with suppress(NoLocksError):  # rank 0 has said so
                self._lock.join()
        left = datamodule.synthesis_count - int((done < datamodule.synthesis_count).sum())
        try:
            _refuse_idle_ranks(left, trainer.world_size)
        except ValueError:
            self.teardown(trainer, pl_module, stage)
            raise

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ends the thread, and gives the lock back."""
        if self._work is not None:
            self._work.close()
            self._work = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the faces that are finished, unless writing is what failed, and gives the lock back."""
        try:
            if self._work is not None and not self._work.failed:
                self._flush()
        except OSError as error:  # the run ends with its first error
            rank_zero_warn(f"synthetic set: the last finished faces cannot be written ({error}); they are made again")
        finally:
            self.teardown(trainer, pl_module, "predict")

    def _look(self, folder: Path) -> np.ndarray:
        """Locks the set and returns the indices of its faces; on rank 0 alone."""
        lock = RanksLock(folder / LOCK)
        try:
            holder = lock.take()
        except NoLocksError as error:
            rank_zero_warn(f"{error}; until then, see to it that no second predict writes this set")
            holder = ""
        if holder:
            raise ValueError(
                f"synthetic set '{folder}': found another predict at work on it ({holder}; lock '{folder / LOCK}'), "
                "expected one at a time (wait until it has ended, or choose another folder)"
            )
        self._lock = lock
        return finished_indices(folder)

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks, averaged weights in place, that the set on disk is of the same kind.

        Raises:
            ValueError: an untrained generator, or a set of another kind.
        """
        assert isinstance(pl_module, Synthesiser)
        if trainer.ckpt_path is None and getattr(pl_module, "needs_checkpoint", False):
            raise ValueError("synthetic set: found no --ckpt_path, expected a trained generator")
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            callbacks = trainer.callbacks  # type: ignore[attr-defined]
            made_with = {
                "generator": pl_module.weights_fingerprint(),
                **_taught_by(pl_module),
                "sampling": asdict(pl_module.sampling),
                "seed": datamodule.run_seed,
                "expressions": list(datamodule.planned_set.expressions),
                **datamodule.planned_set.record,
                **getattr(pl_module, "recipe", dict)(),  # what else its faces are a function of
                **{type(hook).__name__: getattr(hook, "recipe", dict)() for hook in active_hooks(callbacks)},
            }
            folder = self._folder(trainer)
            check_record(folder, made_with)
            if not (folder / MANIFEST).exists() and shard_paths(folder):
                rank_zero_info(f"synthetic set {folder}: without {MANIFEST}: its shards are listed as they are now")
            lost = begin_set(folder, datamodule.synthesis_count)
            plan = getattr(datamodule, "synthesis_plan", "even")
            display_of(trainer).say(face_sentence(pl_module, str(trainer.ckpt_path or ""), None, callbacks, str(plan)))
            if lost:
                names = named_files([folder / "data" / name for name in lost])
                rank_zero_warn(f"synthetic set: {names} had been written and is not there: its faces are made again")
        trainer.strategy.barrier("record of the set")  # nobody writes before rank 0 has agreed
        self._text_labels = has_text_labels(self._folder(trainer))
        self._stream = ShardStream(self._folder(trainer), self.shard_faces, self.shard_seconds)
        self._work = BackgroundWork()
        done = len(datamodule.synthesis_done)
        if done:
            rank_zero_info(f"synthetic set {self._folder(trainer)}: {done} faces are there already")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hands the faces over to be written; an error of an earlier batch ends the run here."""
        assert isinstance(pl_module, Synthesiser) and isinstance(outputs, Faces)
        assert self._work is not None and self._stream is not None
        outputs = outputs.in_label_space(tuple(trainer.datamodule.label_space))  # type: ignore[attr-defined]
        rows, stream, text_labels = rows_of(outputs), self._stream, self._text_labels
        self._work.give(lambda: stream.add(table_of(rows, text_labels)))

    def _flush(self) -> None:
        """Waits until all faces that were handed over are in shards."""
        if self._work is not None and self._stream is not None:
            self._work.give(self._stream.flush)
            self._work.finish()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the card and a picture of the first faces.

        Raises:
            ValueError: faces are missing (``trainer.limit_predict_batches``).
        """
        self._flush()
        trainer.strategy.barrier("synthetic set")
        if not trainer.is_global_zero:
            return
        folder, count = self._folder(trainer), trainer.datamodule.synthesis_count  # type: ignore[attr-defined]
        begin_set(folder, count)  # the journals of all ranks become one list
        # Not compared again: at the start they were, and the others have just been written.
        found = finished_indices(folder, compared=False)
        kept = write_card(folder, {"Near copies": self._near_copies(trainer, folder)})
        names = trainer.datamodule.planned_set.names  # type: ignore[attr-defined]
        self._save_grid(folder, names, Path(trainer.default_root_dir) / "samples" / "synthetic_set.png")
        rank_zero_info(f"synthetic set {folder}: {len(found)} faces, {sum(kept.values())} of them kept")
        is_there = np.zeros(count, dtype=bool)
        is_there[found[found < count]] = True
        missing = np.flatnonzero(~is_there)
        if len(missing):
            raise ValueError(
                f"synthetic set '{folder}': found {len(found)} faces, face {missing[0]} and {len(missing) - 1} more "
                f"are missing, expected {count} (was trainer.limit_predict_batches set? The command makes the rest)"
            )

    def _near_copies(self, trainer: Trainer, folder: Path) -> str:
        """Returns a sentence on the kept faces of the whole set, those of earlier attempts and other ranks included."""
        try:
            search = trainer.datamodule.near_copies()  # type: ignore[attr-defined]
        except (FileNotFoundError, KeyError, ValueError) as error:  # a set can be made where its training faces are not
            rank_zero_warn(f"synthetic set: near copies were not counted, the training faces cannot be read: {error}")
            return f"not counted, the training faces could not be read ({error})"
        self._copies = NearCopyCount()
        self._copies.add_set(search, shard_paths(folder))
        return self._copies.sentence(search)

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.path) if self.path else Path(trainer.default_root_dir) / SET_FOLDER

    def _save_grid(self, folder: Path, names: list[str], path: Path) -> None:
        from synfer.pictures.sample_grid import save_sample_grid

        # One of several ranks makes only some of the expressions, so that a shard need not hold all of them.
        faces: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        for shard in shard_paths(folder):
            if all(len(found) >= _GRID_COLUMNS for found in faces.values()):
                break
            for row in first_rows(shard, ["image", "label"]):
                if all(len(found) >= _GRID_COLUMNS for found in faces.values()):
                    break
                wanted = faces.setdefault(row["label"], [])
                if len(wanted) < _GRID_COLUMNS:
                    wanted.append(torch.from_numpy(decode_image(row["image"]["bytes"], str(shard)).copy()))
        faces = {name: found for name, found in faces.items() if found}
        if faces:
            columns = min(_GRID_COLUMNS, *map(len, faces.values()))
            grid = torch.stack([image for found in faces.values() for image in found[:columns]])
            save_sample_grid(grid.permute(0, 3, 1, 2), list(faces), columns, path)


def _refuse_idle_ranks(left: int, world_size: int) -> None:
    """Refuses faces for some ranks only: one without work would leave the loop, and the others wait for it."""
    if 0 < left < world_size:
        raise ValueError(
            f"synthetic set: found {left} faces left to make for {world_size} ranks, expected one for each (fewer "
            "--trainer.devices)"
        )


def rows_of(faces: Faces) -> SyntheticRows:
    """Returns finished faces as rows of a set, on the CPU."""
    request = faces.request
    return SyntheticRows(
        index=np.array(request.sample_ids, dtype=np.int64),
        sample_id=[sample_name(request.seed, i) for i in request.sample_ids],
        image=faces.images.permute(0, 2, 3, 1).cpu().numpy(),
        label=request.expressions,
        soft_label=faces.soft_label.float().cpu().numpy(),
        label_space=faces.label_space,
        caption=request.captions,
        au=request.action_units_of(ACTION_UNITS),
        au_names=ACTION_UNITS,
        seed=request.seed,
        layout_source=faces.layout_source,
        kept=faces.kept.cpu().numpy(),
        votes={name: votes.float().cpu().numpy() for name, votes in faces.votes.items()},
    )


def _taught_by(maker: Any) -> dict[str, list[str]]:
    """Returns who taught the maker of a set, who must not judge its faces; nothing where nobody did."""
    names = list(getattr(maker, "taught_by", ()))
    return {TAUGHT_BY: names} if names else {}
