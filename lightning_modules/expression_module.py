"""What every module that names expressions has in common, whatever it looks at."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from datamodules.batch import Batch
from lightning_modules.averaged_module import AveragedModule
from lightning_modules.trainer_access import data_of
from synfer.faces.expressions import resolve_label_space
from synfer.foundation.module_file import KIND
from synfer.foundation.renamed_settings import present_settings
from synfer.foundation.validate import check_same_settings
from synfer.labels.soft_label_loss import soft_label_losses, weighted_by_origin
from synfer.optimisation.optimiser import optimiser_of
from synfer.optimisation.schedule import Schedule


class ExpressionModule(AveragedModule):
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
    def _evaluate(self, stage: str, batch: Batch) -> Tensor | None:
        """Takes one batch into the evaluation; returns its probabilities (B, K) where these are known by now."""

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
                f"they must agree in names and order (--model.label_space '[{','.join(found)}]', or that of the data)"
            )

    def build_optimiser(self) -> Optimizer:
        """Returns the optimiser that the settings name, over the trained network."""
        return optimiser_of(self.get_submodule(self.file_format.submodule).parameters(), self._config)

    def learning_rate_schedule(self) -> tuple[Schedule, float]:
        """Returns the schedule that the settings name."""
        return self._config["schedule"], self._config["warmup_fraction"]

    def _losses(self, logits: Tensor, soft_label: Tensor) -> Tensor:
        """Returns the loss of each sample, (B,), of logits and soft labels (B, K)."""
        return soft_label_losses(logits, soft_label, self._config["label_smoothing"])

    def _mean_loss(self, losses: Tensor, is_synthetic: Tensor, counted: Tensor | None = None) -> Tensor:
        """Returns the mean of losses (B,), weighted by origin; of the samples that count, bool (B,)."""
        return weighted_by_origin(losses, is_synthetic, self._config["synthetic_loss_weight"], counted)

    @property
    def _data(self) -> Any:
        return data_of(self.trainer)

    # ------------------------------------------------------------------ evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Takes one batch into the evaluation; callbacks get its probabilities (B, K), if there are any."""
        return self._evaluate("val", batch) if _has_rows(batch) else None

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Takes one batch into the evaluation; callbacks get its probabilities (B, K), if there are any."""
        return self._evaluate("test", batch) if _has_rows(batch) else None

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns the sample ids (B strings) and probabilities float32 (B, K) of one batch."""
        if not _has_rows(batch):
            return {"sample_id": [], "probabilities": batch["image"].new_zeros(0, len(self.label_space))}
        return {"sample_id": batch["sample_id"], "probabilities": self.predict_probabilities(batch["image"])}

    def on_validation_epoch_start(self) -> None:
        """Forgets the last evaluation."""
        self._clear_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Forgets the last evaluation."""
        self._clear_evaluation("test")

    def on_validation_epoch_end(self) -> None:
        """Puts the training weights back, which whoever hears of the metrics may save, and logs those of all ranks."""
        self._use_training_weights()
        self._report_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Puts the training weights back, which whoever hears of the metrics may save, and logs those of all ranks."""
        self._use_training_weights()
        self._report_evaluation("test")

    def _log_scores(self, stage: str, scores: Mapping[str, float], in_progress_bar: Sequence[str]) -> None:
        """Logs what all ranks have computed alike; the named ones are shown while a validation runs."""
        for name, value in scores.items():
            shown = stage == "val" and name in in_progress_bar
            self.log(f"{stage}/{name}", value, prog_bar=shown, rank_zero_only=False, sync_dist=True)

    @property
    def _writes_pictures(self) -> bool:
        """Whether this rank writes the pictures of this evaluation: rank 0, but for trials of a few batches."""
        trial = self.trainer.sanity_checking or bool(getattr(self.trainer, "fast_dev_run", False))
        return self.trainer.is_global_zero and not trial

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what ``load_trained`` needs, in plain types and tensors, under the name of this kind of module."""
        checkpoint[KIND] = self.file_format.kind
        average = self._average_to_save(checkpoint)
        checkpoint[str(self.file_format.entry)] = {"config": self._config, "ema": average}

    def _entry_of(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Returns what :meth:`on_save_checkpoint` has added, with its settings by their names of now.

        Raises:
            ValueError: the checkpoint is another kind of module's.
        """
        wanted = self.file_format
        saved = checkpoint.get(str(wanted.entry))
        if saved is None:
            raise ValueError(f"no checkpoint of {wanted.class_name}: it lacks the key '{wanted.entry}'")
        return {**saved, "config": present_settings(wanted.kind, saved["config"])}

    def _check_label_space(self, path: Path, expected: str | Sequence[str] | None) -> None:
        """Compares the label space of a checkpoint with the one that its reader needs; None = any.

        Raises:
            ValueError: they differ.
        """
        if expected is not None and resolve_label_space(expected) != self.label_space:
            raise ValueError(
                f"{self.file_format.kind} checkpoint {path}: found the label space {', '.join(self.label_space)}, "
                f"expected {', '.join(resolve_label_space(expected))}"
            )

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
