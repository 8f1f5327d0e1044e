"""A LightningModule that trains a part of itself and evaluates the moving average of its weights."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule

from synfer.optimisation.ema import ParameterEMA


class AveragedModule(LightningModule):
    """Keeps the moving average in step with the optimiser, in evaluations and in checkpoints.

    A subclass sets ``ema`` in its ``__init__``; None evaluates the raw weights.
    """

    trainable_submodule: str
    """Name of the submodule that is trained and averaged."""

    ema: ParameterEMA | None

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the weights are random numbers before a checkpoint is loaded, and not worth an evaluation."""
        return True

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

    def _use_averaged_weights(self) -> None:
        if self.ema is not None:
            self.ema.apply_average()

    def _use_training_weights(self) -> None:
        if self.ema is not None:
            self.ema.restore()

    def _average_to_save(self, checkpoint: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the moving average as plain types, and sees to it that the checkpoint holds the training weights.

        Without that, a checkpoint written in the middle of an evaluation, say on Ctrl-C, would hold the averaged ones.
        A collective, as saving is.
        """
        if self.ema is None:
            return None
        for name, tensor in self.ema.replaced.items():
            checkpoint["state_dict"][f"{self.trainable_submodule}.{name}"] = tensor
        if not self.ema.num_updates:
            return None
        return {**self.ema.state_dict(), "buffers_of_ranks": self.ema.buffers_of_ranks()}

    def _take_average(self, average: dict[str, Any] | None) -> None:
        """Goes on from a saved average; weights of an interrupted evaluation do not come back over the loaded ones."""
        self._use_training_weights()
        if self.ema is not None:  # without a saved average its own one, of other weights, ends all the same
            self.ema.load_state_dict({"num_updates": 0, "average": {}} if average is None else average)
