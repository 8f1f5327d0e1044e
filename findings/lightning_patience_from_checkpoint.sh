#!/usr/bin/env bash
# Lightning 2.6.6: a run that early stopping has ended cannot be given more patience. EarlyStopping stores its patience in
# the checkpoint and takes it from there, so that the larger one of the continued run is replaced by the old one, without
# a word, and the run ends at its next validation.
#
# Seen: stopped by patience 1 after 2 epochs; continued with patience 5 and max_epochs 8, patience is 1 again, and it
# stops after one more epoch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lightning==2.6.6 torch==2.14.1
cat > "$folder/probe.py" <<'PYTHON'
import sys

import lightning.pytorch as pl
import torch
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel


class Level(BoringModel):
    def __init__(self, patience):
        super().__init__()
        self.stopper = pl.callbacks.EarlyStopping("level", patience=patience)

    def configure_callbacks(self):
        return [self.stopper]

    def validation_step(self, batch, batch_idx):
        self.log("level", 1.0)  # never gets better


def fit(patience, checkpoint=None):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer = pl.Trainer(max_epochs=8, accelerator="cpu", limit_train_batches=2, limit_val_batches=1, **quiet)
    module = Level(patience)
    trainer.fit(module, BoringDataModule(), ckpt_path=checkpoint)
    print("patience", module.stopper.patience, "epochs", trainer.current_epoch)
    return trainer


path = f"{sys.argv[1]}/stopped.ckpt"
fit(1).save_checkpoint(path)
fit(5, path)
PYTHON
found=$("$folder/venv/bin/python" -W ignore "$folder/probe.py" "$folder" 2>/dev/null)
echo "$found"
[ "$found" = "patience 1 epochs 2
patience 1 epochs 3" ] || { echo "lightning has changed"; exit 1; }
