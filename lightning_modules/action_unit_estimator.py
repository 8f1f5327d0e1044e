"""ActionUnitEstimator: trains an ActionUnitNetwork on faces whose action units the data knows."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from datamodules.batch import Batch
from lightning_modules.averaged_module import AveragedModule
from lightning_modules.trainer_access import data_of
from synfer.faces.action_units import ACTION_UNITS, action_unit_indices
from synfer.foundation.module_file import ModuleFormat
from synfer.metrics.action_unit_scores import action_unit_scores
from synfer.metrics.gathered_rows import GatheredRows
from synfer.networks.au_estimator import ActionUnitNetwork
from synfer.optimisation.ema import ParameterEMA
from synfer.optimisation.schedule import Schedule


class ActionUnitEstimator(AveragedModule):
    """Binary cross-entropy on AU intensities (unknown ones teach nothing), F1 per AU on the validation faces.

    At the end of a fit the estimator is in ``au_estimator/`` of the run folder, ready for ``test.au_estimator`` of a
    generator's test.

    Args:
        au_names: which action units to learn; None = all that have a name here.
        backbone: name of a timm network.
        backbone_kwargs: further arguments of that network.
        image_size: side in pixels that the network works on.
        learning_rate: peak rate of AdamW, one rise and fall over the fit.
        weight_decay: decoupled weight decay.
        present_above: intensity above which an action unit counts as present in F1.
        ema_decay: of the moving average of weights and BatchNorm statistics; None evaluates and keeps the raw weights.

    Raises:
        ValueError: an unknown action unit, or a network that timm cannot build.
    """

    uses_unlabelled_rows = True

    file_format = ModuleFormat("au_estimator", "estimator", "ActionUnitEstimator", name="AU estimator")

    def __init__(
        self,
        au_names: list[str] | None = None,
        backbone: str = "resnet18",
        backbone_kwargs: dict[str, Any] | None = None,
        image_size: int = 48,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        present_above: float = 0.5,
        ema_decay: float | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.estimator = ActionUnitNetwork(list(au_names or ACTION_UNITS), backbone, image_size, backbone_kwargs)
        self.ema = None if ema_decay is None else ParameterEMA(self.estimator, ema_decay)
        self._columns = action_unit_indices(self.estimator.au_names)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of one batch over the action units that are known."""
        loss = self.estimator.loss(batch["image"], batch["au"][:, self._columns])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation."""
        example = torch.empty(0, len(self._columns))
        self._rows = GatheredRows({"seen": example, "truth": example}).to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Takes one batch into the validation."""
        if not len(batch["label"]):  # a rank may have no row
            return
        # Keys only have to differ: the order of the rows does not matter here.
        keys = (torch.arange(len(batch["label"])) + 2**20 * batch_idx) * self.trainer.world_size + self.global_rank
        self._rows.update(keys, seen=self.estimator(batch["image"]), truth=batch["au"][:, self._columns].float())

    def on_validation_epoch_end(self) -> None:
        """Logs scores per action unit, of the rows of all ranks."""
        rows, above = self._rows.compute(), self.hparams["present_above"]
        scores = action_unit_scores(rows["seen"], rows["truth"], self.estimator.au_names, above)
        self.log_dict({f"val/au_f1_{n}" if n == "mean" else f"val/au_f1/{n}": score for n, score in scores.items()})

    def on_fit_start(self) -> None:
        """Checks that there is something to learn.

        Raises:
            ValueError: the training faces have no known action unit.
        """
        super().on_fit_start()
        table = getattr(data_of(self.trainer), "train_table", None)
        if table is not None and (table.au is None or not (table.au[:, self._columns] >= 0).any()):
            raise ValueError(f"AU estimator: found no {', '.join(self.estimator.au_names[:4])}… in the training faces")

    def on_fit_end(self) -> None:
        """Writes the estimator into the run folder, with its averaged weights where there are any."""
        if self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", False):
            with nullcontext() if self.ema is None else self.ema.swapped():
                self.estimator.save(Path(self.trainer.default_root_dir) / "au_estimator")

    def build_optimiser(self) -> Optimizer:
        """Returns AdamW over all weights."""
        rate, decay = self.hparams["learning_rate"], self.hparams["weight_decay"]
        return torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay)

    def learning_rate_schedule(self) -> tuple[Schedule, float]:
        """Returns one rise and fall over the fit."""
        return "one_cycle", 0.2
