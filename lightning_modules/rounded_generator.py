"""A generator that holds its weights in half the memory while it only makes faces."""

from __future__ import annotations

from typing import Any

from lightning_modules.generator_file import GeneratorFile
from synfer.foundation.validate import check_setting
from synfer.synthesis.diffusion.synthesiser import DiffusionSynthesiser


class RoundedGenerator(GeneratorFile):
    """A generator whose UNet ``execution.bf16_weights`` rounds in ``predict`` and ``test``, and for good.

    Attributes:
        synthesiser: holds the UNet.
    """

    synthesiser: DiffusionSynthesiser

    def setup(self, stage: str) -> None:
        """Refuses rounded weights in a training.

        Raises:
            ValueError: they are asked for in ``fit``.
        """
        rounds = self._rounds
        check_setting(
            not rounds or stage != "fit", "execution.bf16_weights", rounds, "false in fit: training needs float32"
        )

    @property
    def _rounds(self) -> bool:
        return bool(self.hparams["execution"]["bf16_weights"])

    def on_predict_start(self) -> None:
        """Puts the averaged weights in place, and rounds them where asked."""
        super().on_predict_start()
        if self._rounds:
            self.synthesiser.round_weights()
            self.ema = None  # it holds each weight twice more, for a training that there will not be

    on_test_start = on_predict_start

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over a checkpoint's state.

        Raises:
            ValueError: the weights have been rounded already, and the average is gone.
        """
        if self.synthesiser.is_rounded:
            raise ValueError(
                "model.execution.bf16_weights: found a checkpoint for a module whose weights have been rounded, "
                "expected one for a new module"
            )
        super().on_load_checkpoint(checkpoint)
