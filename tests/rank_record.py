"""A callback for tests of several ranks: each rank writes what it saw to a file of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer


class RankRecord(Callback):
    """Writes ``rank<r>.json`` at the end of training.

    Args:
        folder: where to.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.steps: list[dict[str, Any]] = []
        self.noise: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens to what the UNet of a generator is given."""
        unet = getattr(getattr(pl_module, "model", None), "unet", None)
        if unet is not None:
            unet.register_forward_pre_hook(self._note_noise)

    def _note_noise(self, unet: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if unet.training:
            self.noise.append({"timesteps": inputs[1].tolist(), "latents": inputs[0].flatten()[:8].tolist()})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes loss and samples of one step."""
        synthetic = batch["is_synthetic"]
        digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16] for image in batch["image"][synthetic]]
        self.steps.append(
            {
                "epoch": trainer.current_epoch,
                "loss": float(outputs["loss"]),
                "real": [name for name, made in zip(batch["sample_id"], synthetic.tolist(), strict=True) if not made],
                "synthetic": [name for name, made in zip(batch["sample_id"], synthetic.tolist(), strict=True) if made],
                "synthetic_images": digests,
            }
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        weights = {name: float(p.detach().double().sum()) for name, p in pl_module.named_parameters()}
        record = {"steps": self.steps, "noise": self.noise, "weights": weights, "world_size": trainer.world_size}
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(record))
