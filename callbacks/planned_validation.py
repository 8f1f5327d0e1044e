"""Whether a validation is one of those that the settings plan."""

from __future__ import annotations

from lightning.pytorch import Trainer


def validates_now(trainer: Trainer) -> bool:
    """Whether a validation is planned after this batch; one that a stop brings forward does not count."""
    if trainer.fit_loop._data_fetcher is None or not validated_epoch(trainer):
        return False
    stop, trainer.should_stop = trainer.should_stop, False
    try:
        return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
    finally:
        trainer.should_stop = stop


def validated_epoch(trainer: Trainer) -> bool:
    """Whether there are validations in this epoch."""
    return trainer.fit_loop.epoch_loop._should_check_val_epoch()
