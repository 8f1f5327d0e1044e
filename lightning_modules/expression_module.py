"""What every module that names expressions has in common, whatever it looks at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from datamodules.batch import Batch
from lightning_modules.averaged_module import AveragedModule
from synfer.faces.expressions import resolve_label_space
from synfer.foundation.validate import check_same_settings
from synfer.optimisation.optimiser import build_optimiser
from synfer.optimisation.schedule import scheduled


class ExpressionPredictor(AveragedModule, ABC):
    """Trains one network for the classes of a label space, and evaluates the moving average of its weights.

    A subclass sets ``label_space``, ``ema`` (over its trained network; None evaluates the raw weights) and ``_config``
    (its arguments, plain types, among them those of the optimiser and its schedule) in its ``__init__``.
    """

    label_space: tuple[str, ...]
    _config: dict[str, Any]

    @abstractmethod
    def predict_probabilities(self, image: Tensor, flip: bool | None = None) -> Tensor:
        """Returns probabilities float32 (B, K) of images (B, 3, H, W) in [0, 1].

        Args:
            image: the images.
            flip: whether to average over each image and its mirror image; None does what the config says.
        """

    @abstractmethod
    def _clear_evaluation(self, stage: str) -> None:
        """Forgets the last evaluation of this stage, "val" or "test"."""

    @abstractmethod
    def _evaluate(self, stage: str, batch: Batch) -> None:
        """Takes one batch into the evaluation."""

    @abstractmethod
    def _report_evaluation(self, stage: str) -> None:
        """Logs the metrics of all ranks."""

    # ------------------------------------------------------------------ training

    def setup(self, stage: str) -> None:
        """Checks that data and module speak of the same classes.

        Raises:
            ValueError: other classes, or another order, in the data.
        """
        found = getattr(self._data, "label_space", None)
        if found is not None and tuple(found) != self.label_space:
            raise ValueError(
                f"model.label_space is {', '.join(self.label_space)}, but the data has {', '.join(found)}: "
                "they must agree in names and order"
            )

    def configure_optimizers(self) -> Any:
        """Builds the optimiser and a schedule over ``trainer.estimated_stepping_batches`` steps.

        Raises:
            ValueError: the length of the training is unknown, or nothing is left to train.
        """
        config = self._config
        optimizer = build_optimiser(
            self._trained_network.parameters(),
            config["optimizer"],
            config["learning_rate"],
            config["weight_decay"],
            config["momentum"],
        )
        steps = self.trainer.estimated_stepping_batches
        return scheduled(optimizer, config["schedule"], steps, config["warmup_share"])

    @property
    def _data(self) -> Any:
        return getattr(self.trainer, "datamodule", None)

    @property
    def _trained_network(self) -> nn.Module:
        return self.get_submodule(self.trainable_submodule)

    # ------------------------------------------------------------------ evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Takes one batch into the evaluation."""
        if _has_rows(batch):
            self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Takes one batch into the evaluation."""
        if _has_rows(batch):
            self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns the sample ids (B strings) and probabilities float32 (B, K) of one batch."""
        if not _has_rows(batch):
            return {"sample_id": [], "probabilities": batch["image"].new_zeros(0, len(self.label_space))}
        return {"sample_id": batch["sample_id"], "probabilities": self.predict_probabilities(batch["image"])}

    def on_validation_epoch_start(self) -> None:
        """Puts the averaged weights in place and forgets the last evaluation."""
        self._use_averaged_weights()
        self._clear_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Puts the averaged weights in place and forgets the last evaluation."""
        self._use_averaged_weights()
        self._clear_evaluation("test")

    def on_predict_epoch_start(self) -> None:
        """Puts the averaged weights in place."""
        self._use_averaged_weights()

    def on_validation_epoch_end(self) -> None:
        """Puts the training weights back and logs the metrics of all ranks."""
        self._use_training_weights()
        self._report_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Puts the training weights back and logs the metrics of all ranks."""
        self._use_training_weights()
        self._report_evaluation("test")

    def on_predict_epoch_end(self) -> None:
        """Puts the training weights back."""
        self._use_training_weights()

    # ------------------------------------------------------------------ checkpoints

    def _check_same_task(self, saved: dict[str, Any], in_weights: tuple[str, ...]) -> None:
        """Compares a checkpoint's arguments with this module's.

        Args:
            saved: arguments of the module that wrote it.
            in_weights: names of those that decide what the weights mean, whether or not their shapes show it.

        Raises:
            ValueError: another label space, another of these settings or, in ``fit``, another optimiser.
        """
        found = resolve_label_space(saved["label_space"])
        if found != self.label_space:
            raise ValueError(
                f"checkpoint with the label space {', '.join(found)}, expected {', '.join(self.label_space)}"
            )
        check_same_settings(saved, self._config, in_weights)
        if self._trainer is not None and self._trainer.state.fn == "fit":
            check_same_settings(saved, self._config, ("optimizer",))


def _has_rows(batch: Batch) -> bool:
    """Whether there is a row in a batch: where rows are fewer than ranks, some ranks get a batch of none."""
    return len(batch.get("sample_id", "?")) > 0
