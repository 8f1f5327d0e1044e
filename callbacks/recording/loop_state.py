"""Lightning's loops, put where a training goes on."""

from __future__ import annotations

from typing import Any

_LAST_STEP = "epoch_loop.state_dict"


def set_loops(fit_loop: dict[str, Any], epoch: int, batches: int, steps: int) -> None:
    """Rewrites the stored state of Lightning's fit loop to a place between two steps; in place.

    Lightning stores its counters wherever a checkpoint happens to be written: inside a batch, after an epoch that was
    broken off and counts as done all the same, before a validation or after it. From each of these it goes on in
    another way, from some with a step too few or too many. Here all of them become one: ``epoch`` epochs are done, and
    ``batches`` batches of the next one.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``.
        epoch: whole epochs done.
        batches: batches done in the epoch that is running, fewer than it has.
        steps: optimiser steps done.
    """
    begun = epoch + (batches > 0)
    fit_loop["epoch_progress"] = _progress(ready=begun, started=begun, processed=epoch, completed=epoch)
    before = fit_loop["epoch_loop.batch_progress"]
    dropped = before["current"]["processed"] - batches if batches else 0  # accumulated gradients that were never used
    total = before["total"]["processed"] - dropped
    fit_loop["epoch_loop.batch_progress"] = {
        "total": dict.fromkeys(("ready", "started", "processed", "completed"), total),
        "current": dict.fromkeys(("ready", "started", "processed", "completed"), batches),
        "is_last_batch": False,
    }
    validation = fit_loop.get("epoch_loop.val_loop.batch_progress")
    if validation is not None:  # no checkpoint is written while one is due or running
        fit_loop["epoch_loop.val_loop.batch_progress"] = {
            **_progress(ready=0, started=0, processed=0, completed=0),
            "is_last_batch": False,
        }
    fit_loop.setdefault(_LAST_STEP, {})["_batches_that_stepped"] = steps
    fit_loop.setdefault("state_dict", {}).pop("combined_loader", None)  # the data module has the place in the data


def stored_place(fit_loop: dict[str, Any]) -> tuple[int, int]:
    """Returns (whole epochs, batches of the running one) as Lightning's own counters of an older checkpoint tell it."""
    epoch, batch = fit_loop["epoch_progress"]["current"], fit_loop["epoch_loop.batch_progress"]
    done = epoch["processed"]
    # An epoch that has ended counts as processed; its batches are still those of the last one.
    return (done, 0) if epoch["started"] == done else (done, batch["current"]["processed"])


def _progress(**counters: int) -> dict[str, dict[str, int]]:
    return {"total": dict(counters), "current": dict(counters)}
