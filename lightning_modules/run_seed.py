"""The one seed of what a run draws."""

from __future__ import annotations

import os
from typing import Any

from lightning_modules.trainer_access import data_of


def run_seed(trainer: Any) -> int:
    """Returns ``data.seed`` where it is given, else ``seed_everything``, else 0: the seed of all numbers drawn by key.

    Those are the choice and order of rows, augmentation, noise and timesteps of training, and every face that is made:
    in a pool, a set, a grid or a test. ``seed_everything`` alone rules what is drawn from the global generators: the
    weights that a network begins with, and dropout.

    Args:
        trainer: the module's trainer, whose data module knows its seed; None, or one without, asks the environment.
    """
    found = getattr(data_of(trainer), "run_seed", None)
    return int(os.environ.get("PL_GLOBAL_SEED", 0)) if found is None else int(found)
