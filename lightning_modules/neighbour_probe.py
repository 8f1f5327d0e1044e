"""NeighbourProbe: what the features of any network are worth without training anything on them."""

from __future__ import annotations

from lightning.pytorch import LightningModule
from torch import Tensor

from datamodules.batch import Batch
from datamodules.row_record import refuse_seen
from lightning_modules.frozen_features import FrozenFeatures
from lightning_modules.neighbour_scores import NeighbourScores
from lightning_modules.trainer_access import command_name, data_of
from synfer.foundation.validate import check_setting
from synfer.representation.progress import NeighbourSettings


class NeighbourProbe(LightningModule):
    """Names faces by the training faces whose features are most like theirs.

    For ``python train.py validate`` or ``test``; trains nothing. Logs ``val/knn_accuracy``,
    ``val/knn_mean_class_accuracy``, recalls, or the same of ``test``: those of one process, whatever the ranks.

    Args:
        backbone_weights: the network (:class:`lightning_modules.frozen_features.FrozenFeatures`).
        neighbours: of vote and bank.

    Raises:
        FileNotFoundError: no network there.
        ValueError: nothing that has features.
    """

    def __init__(
        self,
        backbone_weights: str,
        neighbours: NeighbourSettings = NeighbourSettings(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.network = FrozenFeatures(backbone_weights)
        self.image_size, self.weights_source = self.network.image_size, self.network.source
        self._neighbours = NeighbourScores(neighbours)

    def forward(self, image: Tensor) -> Tensor:
        """Returns unit rows (B, F) of images (B, 3, H, W) in [0, 1]."""
        rows: Tensor = self.network(image)
        return rows

    def setup(self, stage: str) -> None:
        """Checks the command.

        Raises:
            ValueError: another one than validate or test, or a network that has learned from rows held out.
        """
        stage = command_name(stage)
        fine = stage in ("test", "validate")
        check_setting(fine, "class_path", f"NeighbourProbe with the command {stage}", "test or validate")
        validation = data_of(self.trainer).val_table
        refuse_seen(validation, self.network.trained_on, f"model.backbone_weights '{self.weights_source['path']}'")

    def on_validation_epoch_start(self) -> None:
        """Computes the features of the bank.

        Raises:
            ValueError: no training face has an expression.
        """
        self._neighbours.open(data_of(self.trainer), self.trainer, self, self.device)
        check_setting(
            self._neighbours.is_open, "reader", "no training face with an expression", "some, for a bank", group="data"
        )

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Takes one batch into the score."""
        if len(batch["sample_id"]):  # a rank may have no row
            self._neighbours.update(self(batch["image"]), batch["label"])

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of all ranks."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Logs the scores of all ranks."""
        self._report("test")

    def _report(self, stage: str) -> None:
        for name, value in self._neighbours.scores(self.trainer).items():
            self.log(f"{stage}/knn_{name}", value, rank_zero_only=False, sync_dist=True)
