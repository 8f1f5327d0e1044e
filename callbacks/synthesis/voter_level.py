"""Whether those that guide and vote know anything: looked at on validation rows, before faces are made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.random import fork_rng

from datamodules.row_record import refuse_seen
from datamodules.rows.grey_or_colour import as_rgb
from datamodules.rows.row_choice import even_order
from datamodules.rows.sample_table import SampleTable
from lightning_modules.trainer_access import data_of
from lightning_modules.voter import LoadedVoter

MOST_ROWS = 128
"""Validation rows that each is shown; enough to tell a trained one from one that guesses."""

_DEVIATIONS = 2.0


def check_level(key: str, voter: LoadedVoter, trainer: Trainer) -> None:
    """Warns where a network guesses, and refuses one that has learned from rows that are held out.

    Every rank looks at the same rows, so that none waits for another.

    Args:
        key: the setting that names the network: "guidance.guide".
        voter: the network.
        trainer: of a fit; other runs read no validation rows.

    Raises:
        ValueError: rows that the run holds out (``data.val_fraction``) are among those that it has learned from.
    """
    table: SampleTable | None = getattr(data_of(trainer), "val_table", None)
    if table is None or getattr(data_of(trainer), "synthetic_ratio", 0) == 0:
        return
    refuse_seen(table, voter.trained_on, f"{key} '{voter.name}'")
    found = recall_of(voter.network, table, trainer.strategy.root_device)
    if found is None:
        return
    recall, classes, rows = found
    chance = 1 / classes
    if recall < chance + _DEVIATIONS * math.sqrt(chance * (1 - chance) / rows):
        rank_zero_warn(
            f"{key} '{voter.name}': found {recall:.0%} mean recall on {rows} validation rows of {classes} expressions, "
            f"no better than chance ({chance:.0%}), expected a trained one (python train.py fit with a config of "
            "configs/classifier/, then its run folder here)"
        )


@torch.no_grad()
def recall_of(network: Any, table: SampleTable, device: torch.device) -> tuple[float, int, int] | None:
    """Returns the mean recall over classes, how many classes and how many rows; None of fewer than two classes.

    Args:
        network: a voter.
        table: rows to look at, of which at most :data:`MOST_ROWS` are taken, the classes in their own shares.
        device: where to look.
    """
    known = [name for name in table.label_space if name in network.label_space]
    column = np.array([known.index(name) if name in known else -1 for name in table.label_space])
    order = even_order(table.label, table.sample_id, seed=0)
    order = order[(table.label[order] >= 0) & (column[table.label[order]] >= 0)][:MOST_ROWS]
    label = column[table.label[order]]
    present = np.unique(label)
    if len(present) < 2:
        return None
    place = network.to(device)
    with fork_rng(devices=[]):  # a training beside it must not be disturbed
        image = as_rgb(table.images.batch(order)).to(device).float() / 255
        probabilities = torch.cat([place.predict_probabilities(part) for part in image.split(32)]).float().cpu().numpy()
    chosen = probabilities[:, [network.label_space.index(known[code]) for code in present]].argmax(1)
    recalls = [float((present[chosen[label == code]] == code).mean()) for code in present]
    return float(np.mean(recalls)), len(present), len(order)
