"""A callback for the benchmark of the start: notes when the first training step was done, and what it took."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class FirstStep(Callback):
    """Writes seconds since 1970 and CPU seconds of the process, as a JSON list, once.

    Args:
        path: where to.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes the file."""
        if trainer.global_step == 1:
            self.path.write_text(json.dumps([time.time(), time.process_time()]))
