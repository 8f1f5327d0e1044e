#!/usr/bin/env bash
# Lightning 2.6.6: the state of a training loader is saved in every checkpoint, and restored only if nobody has asked for
# the number of training steps before.
#
# A loader with state_dict / load_state_dict is how Lightning's own warning tells to make a run go on in the middle of an
# epoch. A module that reads trainer.estimated_stepping_batches in configure_optimizers, as its documentation shows for
# learning rate schedules, has the loader set up there, before the loops are restored; the stored state is then never
# read, without a word. The continued run sees the first batches of the epoch again and never the last ones.
#
# Seen: without that line the run goes on with batches 2 and 3, with it with batches 0 and 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lightning==2.6.6 torch==2.14.1
cat > "$folder/probe.py" <<'PYTHON'
import sys

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader


class Resumable(DataLoader):
    start = done = 0

    def __iter__(self):
        begin, self.start, self.done = self.start, 0, self.start
        for batch in list(super().__iter__())[begin:]:
            self.done += 1
            yield batch

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.start = state["done"]


class Module(pl.LightningModule):
    def __init__(self, asks):
        super().__init__()
        self.layer, self.asks, self.seen = torch.nn.Linear(1, 1), asks, []

    def training_step(self, batch, batch_idx):
        self.seen.append(int(batch))
        return self.layer(batch.float()[None]).sum()

    def configure_optimizers(self):
        if self.asks:
            self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(asks, steps, checkpoint=None):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer, module = pl.Trainer(max_steps=steps, max_epochs=1, accelerator="cpu", **quiet), Module(asks)
    trainer.fit(module, Resumable(torch.arange(4), batch_size=1), ckpt_path=checkpoint)
    return trainer, module


for asks in (False, True):
    trainer, _ = fit(asks, 2)
    path = f"{sys.argv[1]}/{asks}.ckpt"
    trainer.save_checkpoint(path)
    # The epoch counts as done where max_steps ends it: open it again, as a checkpoint written inside it would have it.
    saved = torch.load(path, weights_only=True)
    progress = saved["loops"]["fit_loop"]["epoch_progress"]
    for count in progress.values():
        count["processed"] = count["completed"] = 0
    torch.save(saved, path)
    print("asks" if asks else "does not ask", fit(asks, 4, path)[1].seen)
PYTHON
found=$("$folder/venv/bin/python" -W ignore "$folder/probe.py" "$folder" 2>/dev/null)
echo "$found"
[ "$found" = "does not ask [2, 3]
asks [0, 1]" ] || { echo "lightning has changed"; exit 1; }
