"""How a trained classifier is stored for use: a folder of settings and weights beside the checkpoints of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_modules.expression_module import ExpressionModule
from synfer.foundation.module_file import WEIGHTS_ALONE, with_average, write_folder
from synfer.foundation.renamed_settings import present_settings


class ClassifierFile(ExpressionModule):
    """A classifier that can be written as a folder, and takes the weights of one."""

    def save_trained(self, folder: str | Path) -> None:
        """Writes what a finished classifier needs, and nothing else: ``model.safetensors`` and ``config.json``.

        Averaged weights where there are any. In float32, so that the folder has the fingerprint of the checkpoint, and
        a guide is known as itself when it is given as the judge.

        Args:
            folder: made if missing; ``load_trained`` reads it, and whatever takes a classifier's checkpoint to use it.
        """
        average = None if self.ema is None or self.ema.is_swapped else self.ema.state_dict()
        weights = with_average(self.state_dict(), average, self.file_format.submodule)
        write_folder(Path(folder), self.file_format.kind, self._config, weights)

    def _entry_of(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        if checkpoint.get(WEIGHTS_ALONE):
            return {"config": present_settings(self.file_format.kind, checkpoint["hyper_parameters"]), "ema": None}
        return super()._entry_of(checkpoint)
