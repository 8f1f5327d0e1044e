"""A LightningModule that trains a part of itself and evaluates the moving average of its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from torch.optim import Optimizer

from synfer.foundation.module_file import KIND, ModuleFormat
from synfer.optimisation.ema import ParameterEMA
from synfer.optimisation.schedule import Schedule, scheduled


class AveragedModule(LightningModule, ABC):
    """Keeps the moving average in step with the optimiser, in evaluations and in checkpoints.

    A subclass says how its files look (``file_format``, whose ``submodule`` is what is trained and averaged), sets
    ``ema`` in its ``__init__`` (None evaluates the raw weights), and names its optimiser and schedule.
    """

    file_format: ClassVar[ModuleFormat]

    ema: ParameterEMA | None

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the weights are random numbers before a checkpoint is loaded, and not worth an evaluation."""
        return True

    # ------------------------------------------------------------------ training

    @abstractmethod
    def build_optimiser(self) -> Optimizer:
        """Returns the optimiser, with its peak rates."""

    @abstractmethod
    def learning_rate_schedule(self) -> tuple[Schedule, float]:
        """Returns the course of the rate, and the fraction of the steps, in [0, 1), in which it rises."""

    def configure_optimizers(self) -> Any:
        """Returns the optimiser and its schedule over ``trainer.estimated_stepping_batches`` steps.

        Raises:
            ValueError: the length of the training is unknown, or nothing is left to train.
        """
        optimiser = self.build_optimiser()
        schedule, warmup_fraction = self.learning_rate_schedule()
        return scheduled(optimiser, schedule, self.trainer.estimated_stepping_batches, warmup_fraction)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Takes a step, and the weights after it into the average.

        Here and not at the end of the batch: a checkpoint that a callback writes there holds both, or neither.
        """
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update()

    def on_fit_start(self) -> None:
        """Puts the training weights back if an earlier evaluation never came to its end."""
        self._use_training_weights()

    # ------------------------------------------------------------------ evaluation

    def on_validation_start(self) -> None:
        """Puts the averaged weights in place."""
        self._use_averaged_weights()

    def on_validation_end(self) -> None:
        """Puts the training weights back."""
        self._use_training_weights()

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def _use_averaged_weights(self) -> None:
        if self.ema is not None:
            self.ema.apply()

    def _use_training_weights(self) -> None:
        if self.ema is not None:
            self.ema.restore()

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the kind of module and the moving average."""
        checkpoint[KIND] = self.file_format.kind
        average = self._average_to_save(checkpoint)
        if average is not None:
            checkpoint["ema"] = average

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the moving average."""
        self._load_average(checkpoint.get("ema"))

    def _average_to_save(self, checkpoint: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the moving average as plain types, and sees to it that the checkpoint holds the training weights.

        Without that, a checkpoint written in the middle of an evaluation, say on Ctrl-C, would hold the averaged ones.
        A collective, as saving is.
        """
        if self.ema is None:
            return None
        for name, tensor in self.ema.backup.items():
            checkpoint["state_dict"][f"{self.file_format.submodule}.{name}"] = tensor
        if not self.ema.num_updates:
            return None
        return {**self.ema.state_dict(), "buffers_of_ranks": self.ema.buffers_of_ranks()}

    def _load_average(self, average: dict[str, Any] | None) -> None:
        """Goes on from a saved average; weights of an interrupted evaluation do not come back over the loaded ones."""
        self._use_training_weights()
        if self.ema is not None:  # without a saved average its own one, of other weights, ends all the same
            self.ema.load_state_dict({"num_updates": 0, "average": {}} if average is None else average)
