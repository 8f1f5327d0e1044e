"""LabelEvaluation: how right the labels of a label table are, by a data set that knows better."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from datamodules.batch import Batch
from lightning_modules.trainer_access import command_name, data_of
from synfer.faces.expressions import map_label_space
from synfer.labels.label_table import LabelTable, read_label_table
from synfer.metrics.confusion_scores import confusion_scores
from synfer.metrics.gathered_rows import GatheredRows
from synfer.pictures.confusion_matrix import save_confusion_matrix
from synfer.pictures.reliability_diagram import save_reliability_diagram


class LabelEvaluation(LightningModule):
    """Compares old and new labels with the labels of the validation split, which stand for the truth.

    Rows are joined by sample id. Rows whose true expression the table does not know (contempt, for a table of seven)
    are left out and counted. For ``python train.py validate``; trains nothing. Metrics:

    - ``val/agreement_old``, ``val/agreement_new``: share of rows whose label is the true one, before and after;
    - ``val/agreement/<voter>``: the same of each voter alone;
    - ``val/found``: share of the wrong old labels that were changed; ``val/repaired``: to the true one;
    - ``val/harmed``: share of the right old labels that are wrong now;
    - ``val/recall_old/<name>``, ``val/recall_new/<name>``, ``val/ece`` of the new soft labels, ``val/rows``.

    Args:
        label_table: Parquet file of ``predict`` with a :class:`lightning_modules.relabeller.Relabeller`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no label table.
    """

    def __init__(self, label_table: str) -> None:
        super().__init__()
        self.path = label_table
        self.table: LabelTable = read_label_table(label_table)
        self._place = {name: index for index, name in enumerate(self.table.sample_id.tolist())}
        example = torch.zeros(0, dtype=torch.int64)
        self._rows = GatheredRows({"place": example, "truth": example}, keyed=False)
        self._hash_of: dict[str, str] = {}
        self._space = torch.zeros(0, dtype=torch.int64)

    def setup(self, stage: str) -> None:
        """Maps the truth's classes to the table's by name.

        Raises:
            ValueError: another command than validate, no common row, or another image under a sample id.
        """
        stage = command_name(stage)
        data = data_of(self.trainer)
        if stage != "validate":
            raise ValueError(f"scoring a label table: found the command {stage}, expected validate")
        self._space = torch.from_numpy(map_label_space(self.table.label_space, data.label_space))
        rows = data.val_table
        common = [
            (name, code) for name, code in zip(rows.sample_id, rows.content_hash, strict=True) if name in self._place
        ]
        if not common:
            raise ValueError(
                f"model.label_table '{self.path}': found none of the {len(rows)} rows, such as '{rows.sample_id[0]}', "
                f"expected ids such as '{self.table.sample_id[0]}'"
            )
        changed = [name for name, code in common if self.table.content_hash[self._place[name]] != code]
        if changed:
            raise ValueError(
                f"model.label_table '{self.path}': '{changed[0]}' is another image than the one that was relabelled "
                f"({len(changed)} rows), expected a table of this data set"
            )

    def on_validation_epoch_start(self) -> None:
        """Forgets an earlier validation."""
        self._rows.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Takes one batch into the score."""
        if not len(batch["label"]):  # a rank may have no row
            return
        truth = self._space.to(batch["label"].device)[batch["label"]]
        place = torch.tensor([self._place.get(name, -1) for name in batch["sample_id"]], device=truth.device)
        self._rows.to(self.device).update(place=place, truth=truth)

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of all ranks and saves the pictures."""
        place, truth = (column.cpu() for column in self._rows.compute().values())
        usable = (truth >= 0) & (place >= 0)
        place, truth, left_out = place[usable], truth[usable], int((~usable).sum())
        if not len(place):
            raise ValueError(
                f"model.label_table '{self.path}': found no row to score, expected some with a known truth"
            )
        scores = self.scores(place, truth)
        scores["rows"], scores["rows_left_out"] = float(len(place)), float(left_out)
        for name, value in scores.items():
            self.log(f"val/{name}", value, rank_zero_only=False, sync_dist=True)
        rank_zero_info(
            f"labels right: {scores['agreement_old']:.2%} before, {scores['agreement_new']:.2%} after "
            f"({len(place)} rows)"
        )
        if self.trainer.is_global_zero:
            self._save_pictures(place, truth)

    def scores(self, place: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns the metrics of rows of the table (n,) and their true classes (n,)."""
        table, k = self.table, len(self.table.label_space)
        old, new = torch.from_numpy(table.old_label)[place], torch.from_numpy(table.label)[place]
        soft = torch.from_numpy(table.soft_label)[place]
        was_right, is_right = old == truth, new == truth
        scores = {
            "agreement_old": _share(is_true=was_right),
            "agreement_new": _share(is_true=is_right),
            "found": _share((old != new)[~was_right]),
            "repaired": _share(is_right[~was_right]),
            "harmed": _share(~is_right[was_right]),
            "ece": float(multiclass_calibration_error(soft, truth, k, validate_args=False)),
        }
        for name, votes in table.votes.items():
            scores[f"agreement/{name}"] = _share(torch.from_numpy(votes)[place].argmax(1) == truth)
        for when, label in (("old", old), ("new", new)):
            recalls = confusion_scores(
                multiclass_confusion_matrix(label, truth, k, validate_args=False), table.label_space
            )
            scores |= {
                name.replace("recall/", f"recall_{when}/"): value
                for name, value in recalls.items()
                if name.startswith("recall/")
            }
        return scores

    def _save_pictures(self, place: Tensor, truth: Tensor) -> None:
        table, folder = self.table, Path(self.trainer.default_root_dir) / "samples"
        soft, new = torch.from_numpy(table.soft_label)[place], torch.from_numpy(table.label)[place]
        save_reliability_diagram(soft.max(1).values, new == truth, folder / "reliability.png", "new labels")
        for when, label in (("old", torch.from_numpy(table.old_label)[place]), ("new", new)):
            confusion = multiclass_confusion_matrix(label, truth, len(table.label_space), validate_args=False)
            save_confusion_matrix(
                confusion, table.label_space, folder / f"labels_{when}.png", f"{when} labels", columns=when
            )


def _share(is_true: Tensor) -> float:
    """Returns the share of true entries; 0 of none."""
    return float(is_true.double().mean()) if len(is_true) else 0.0
