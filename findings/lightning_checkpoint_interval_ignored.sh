#!/usr/bin/env bash
# Lightning 2.6.6: ModelCheckpoint passes over train_time_interval where the module optimises by hand. Its branch for
# manual optimisation looks at every_n_train_steps alone, and warns there of a state before the step that the module was
# to keep under the names saved_models and layer.
#
# Seen: with an interval of no time at all, eight steps leave one checkpoint each where Lightning optimises, and none
# where the module does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lightning==2.6.6 torch==2.14.1
cat > "$folder/probe.py" <<'PYTHON'
import sys
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel, ManualOptimBoringModel

quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0)
for model in (BoringModel(), ManualOptimBoringModel()):
    place = Path(sys.argv[1]) / type(model).__name__
    keep = pl.callbacks.ModelCheckpoint(place, train_time_interval=timedelta(0), save_top_k=-1)
    pl.Trainer(max_steps=8, accelerator="cpu", callbacks=[keep], **quiet).fit(model, BoringDataModule())
    print(type(model).__name__, len(list(place.glob("*.ckpt"))))
PYTHON
found=$("$folder/venv/bin/python" -W ignore "$folder/probe.py" "$folder" 2>/dev/null)
echo "$found"
[ "$found" = "BoringModel 8
ManualOptimBoringModel 0" ] || { echo "lightning has changed"; exit 1; }
