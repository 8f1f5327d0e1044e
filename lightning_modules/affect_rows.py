"""What a classifier that rates valence and arousal asks of the rows: some ratings, and expressions unless alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.batch import Batch
from datamodules.rows.sample_table import UNLABELLED, SampleTable, affect_of
from synfer.faces.affect import AFFECT


def affect_in(batch: Batch) -> Tensor:
    """Returns valence and arousal of a batch, float32 (B, 2), NaN where nobody knows."""
    if "affect" in batch:
        return batch["affect"]
    return torch.full((len(batch["label"]), len(AFFECT)), torch.nan, device=batch["label"].device)


def check_affect_rows(data: Any, alone: bool, loss: str, needs: str | None) -> None:
    """Checks before a fit that the training rows can teach what is to be learned, and says how many do.

    Args:
        data: the data module, set up for "fit".
        alone: whether expressions are left out.
        loss: name of the loss of the expressions.
        needs: what that loss has to know of the classes.

    Raises:
        ValueError: no row is rated, none has an expression though expressions are to be learned, or the loss counts the
            labels of all rows and some have none.
    """
    table: SampleTable | None = getattr(data, "train_table", None)
    if table is None:
        return
    known = np.isfinite(affect_of(table))
    if not known.any():
        raise ValueError(
            f"model.affect.enabled=true: found no valence or arousal of any of the {len(table)} training rows, "
            "expected some (of AffectNet, Aff-Wild2 or drawn faces, or in the columns of "
            "data.reader.init_args.valence_column and arousal_column)"
        )
    named = table.label != UNLABELLED
    if not alone and not named.any():
        raise ValueError(
            f"model.affect.alone=false: found {len(table)} training rows without an expression, expected some with "
            "one, or true to rate valence and arousal alone"
        )
    if not alone and needs == "prior" and not named.all():
        raise ValueError(
            f"model.loss.kind: found '{loss}' and {int((~named).sum())} of {len(table)} training rows without an "
            "expression, whose shares it would count, expected cross_entropy or focal"
        )
    counts = [f"{name} of {int(count)}" for name, count in zip(AFFECT, known.sum(0), strict=True)]
    expressions = "" if alone else f", an expression of {int(named.sum())}"
    rank_zero_info(f"model.affect: of {len(table)} training rows {', '.join(counts)}{expressions} are known")
