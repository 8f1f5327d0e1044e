"""When relabelling is done: the label table is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_modules.relabeller import Relabeller
from synfer.labels.label_table import LabelTable, read_label_table, write_label_table
from synfer.pictures.confusion_matrix import save_confusion_matrix


class LabelTableWriter(Callback):
    """Collects the votes of ``predict`` and writes one Parquet label table and a picture of the flow old → new.

    Every rank writes its votes as a part; when all have, rank 0 joins them, applies the rule to all rows at once (the
    noise of the labels can only be estimated from all of them) and writes the table.

    Args:
        path: the file to write; null = ``labels.parquet`` in the run folder.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._batches: list[dict[str, Any]] = []
        self._flow = torch.zeros(0, 0)
        self._seen: dict[str, int] = {}

    @property
    def counts(self) -> dict[str, int]:
        """For summary.json: rows relabelled, changed, and seen before by the generator of each voter that has one."""
        if not len(self._flow):  # other ranks: theirs are summed with rank 0's
            return {"relabelled": 0, "changed": 0, **dict.fromkeys(self._seen, 0)}
        total = int(self._flow.sum())
        return {"relabelled": total, "changed": total - int(self._flow.diagonal().sum()), **self._seen}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that there is something to write.

        Raises:
            ValueError: the model is no :class:`Relabeller`.
        """
        if stage == "predict" and not isinstance(pl_module, Relabeller):
            raise ValueError(
                f"LabelTableWriter: found the model {type(pl_module).__name__}, expected "
                "lightning_modules.relabeller.Relabeller"
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier prediction, and removes the part of one that broke off."""
        assert isinstance(pl_module, Relabeller)
        self._batches, self._flow = [], torch.zeros(0, 0)
        known = {name: seen["rows"] for name, seen in pl_module.generators.items() if seen["rows"] is not None}
        self._seen = {f"seen_by_generator_of/{name}": rows for name, rows in known.items()}
        self._part_path(trainer, trainer.global_rank).unlink(missing_ok=True)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the votes of one batch."""
        votes = {name: probabilities.float().cpu() for name, probabilities in outputs["votes"].items()}
        self._batches.append(
            {"sample_id": list(outputs["sample_id"]), "old_label": outputs["old_label"].cpu(), "votes": votes}
        )

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the part of this rank, and on rank 0 the whole.

        Raises:
            ValueError: rows without votes.
        """
        assert isinstance(pl_module, Relabeller)
        path = self._path(trainer)
        parts = [self._part_path(trainer, rank) for rank in range(trainer.world_size)]
        if self._batches:
            write_label_table(parts[trainer.global_rank], self._part(pl_module))
        trainer.strategy.barrier("label table")
        if trainer.is_global_zero:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            rows = getattr(data, f"{data.predict_split}_table")
            table = self._joined(
                [read_label_table(part) for part in parts if part.is_file()], rows.sample_id, pl_module
            )
            write_label_table(path, table)
            for part in parts:
                part.unlink(missing_ok=True)
            self._report(table, path, trainer)

    def _path(self, trainer: Trainer) -> Path:
        return Path(self.path) if self.path else Path(trainer.default_root_dir) / "labels.parquet"

    def _part_path(self, trainer: Trainer, rank: int) -> Path:
        path = self._path(trainer)
        return path.with_name(f".{path.stem}-part{rank}.parquet")

    def _part(self, module: Relabeller) -> LabelTable:
        votes = {
            name: torch.cat([b["votes"][name] for b in self._batches]).numpy() for name in self._batches[0]["votes"]
        }
        ids = [name for batch in self._batches for name in batch["sample_id"]]
        return LabelTable(
            sample_id=np.array(ids),
            content_hash=np.array([module.content_hash(name) for name in ids]),
            label_space=module.label_space,
            old_label=torch.cat([b["old_label"] for b in self._batches]).numpy(),
            soft_label=np.mean(list(votes.values()), axis=0),
            votes=votes,
        )

    def _joined(self, parts: list[LabelTable], order: np.ndarray, module: Relabeller) -> LabelTable:
        """Returns the rows of all ranks in the data's order, relabelled."""
        ids = np.concatenate([part.sample_id for part in parts]) if parts else np.zeros(0, dtype=str)
        place = {name: index for index, name in enumerate(ids.tolist())}
        lost = [name for name in order.tolist() if name not in place]
        if lost:
            raise ValueError(
                f"label table: found no votes on '{lost[0]}' ({len(lost)} of {len(order)} rows), expected all (was "
                "trainer.limit_predict_batches set?)"
            )
        index = np.array([place[name] for name in order.tolist()])
        votes = {name: np.concatenate([part.votes[name] for part in parts])[index] for name in parts[0].votes}
        old = np.concatenate([part.old_label for part in parts])[index]
        stacked = torch.from_numpy(np.stack([votes[name] for name in module.voter_names]))
        return LabelTable(
            sample_id=ids[index],
            content_hash=np.concatenate([part.content_hash for part in parts])[index],
            label_space=module.label_space,
            old_label=old,
            soft_label=module.rectify(torch.from_numpy(old), stacked).float().numpy(),
            votes=votes,
            generators=module.generators,
        )

    def _report(self, table: LabelTable, path: Path, trainer: Trainer) -> None:
        k = len(table.label_space)
        pairs = torch.from_numpy(table.old_label * k + table.label)
        self._flow = torch.bincount(pairs, minlength=k * k).reshape(k, k)
        picture = Path(trainer.default_root_dir) / "samples" / "relabelled.png"
        save_confusion_matrix(self._flow, table.label_space, picture, "labels", rows="old", columns="new")
        counts = self.counts
        rank_zero_info(f"label table {path}: {counts['changed']} of {counts['relabelled']} labels changed")
