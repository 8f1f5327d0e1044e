"""All ranks stop after the same step: on a signal, or where the loss is no number any more."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

CLUSTER_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send to a job whose time is nearly up, or that has to go."""

_SIGNALS = (*CLUSTER_SIGNALS, signal.SIGINT)
_NO_STEP = -(2**62)
_STEPS_ON_DEVICES = 10
"""On an accelerator the ranks agree after every tenth step: each look waits for the device."""


@contextmanager
def exit_code_of_stop(trainer: Trainer) -> Iterator[None]:
    """Turns the end of a run that a signal stopped into the exit code that shells know: 128 + its number.

    Raises:
        SystemExit: with that code.
    """
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as ended:
        number = stop_signal(trainer)
        if not number and KeyboardInterrupt in (type(ended), type(ended.__context__)):  # before the first step
            number = signal.SIGINT  # for which Lightning exits with 1
        if number:
            raise SystemExit(128 + number) from None
        raise


def stop_signal(trainer: Trainer) -> int:
    """Returns the number of the signal that a run stops for; 0 = none."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return max((c.signal for c in callbacks if isinstance(c, AgreedStop)), default=0)


def stop_is_agreed(trainer: Trainer) -> bool:
    """Whether a signal stops all ranks after the same step."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(c.is_agreed for c in callbacks if isinstance(c, AgreedStop))


class AgreedStop(Callback):
    """Ends a fit after a whole step, the same one on every rank, so that its state can be saved.

    SIGTERM, SIGUSR1 and SIGUSR2 (a scheduler whose time is up) and the first Ctrl-C are remembered and handed round
    after the step; the second Ctrl-C ends at once. The first signal counts: a warning tells more than the end that
    follows it. Lightning's own handler broadcasts from inside the signal, in the middle of whatever collective the step
    has reached. In validate, test and predict, where there is nothing to save, a signal ends at once.

    Whoever starts a process deaf to a signal means it: a shell does so to Ctrl-C of its background jobs, a sweep to
    SIGUSR1 and SIGUSR2, which SLURM sends to all processes of a step.

    A loss that is NaN or infinite ends the fit as an error: nothing that follows it is worth a checkpoint.

    Attributes:
        signal: number of the signal that all ranks stop for; 0 = none.
        is_agreed: whether all ranks stop for it after the same step; otherwise this one alone ends.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.is_agreed = False
        self._received = 0
        self._bad_step: Tensor | None = None
        self._before: dict[int, Any] = {}
        self._saves: bool | None = None  # None = another rank tells

    # ------------------------------------------------------------------ signals

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens for signals; Lightning has just put its own handlers in place."""
        self._saves = bool(trainer.checkpoint_callbacks) if trainer.is_global_zero else None
        self._listen(self._remember)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=pl_module.device)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a ``validate`` at once on a signal; inside a fit the step's handler stays."""
        if trainer.state.fn != "fit":
            self._listen(self._end_now)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a ``test`` at once on a signal."""
        self._listen(self._end_now)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a ``predict`` at once on a signal: what is finished has been written."""
        self._listen(self._end_now)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Puts the handlers back that were there before."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the handlers back that were there before."""
        self._restore()

    def _listen(self, handler: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            found = signal.getsignal(number)
            own = (signal.default_int_handler, self._remember, self._end_now)
            if found is signal.SIG_IGN or (number == signal.SIGINT and found not in own):
                continue
            self._before.setdefault(number, found)
            signal.signal(number, handler)

    def _restore(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                if signal.getsignal(number) in (self._remember, self._end_now):  # Lightning may have been first
                    signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def _remember(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self._received == signal.SIGINT:
            raise KeyboardInterrupt
        is_first = not self._received
        if is_first or number == signal.SIGINT:
            self._received = number
        if self._saves is not None and (is_first or number == signal.SIGINT):
            line = _what_follows(number, self._saves)
            # Straight to stderr: the signal may have come in the middle of a print, which cannot be entered twice.
            with contextlib.suppress(OSError):
                os.write(2, f"\n{line}\n".encode())

    def _end_now(self, number: int, frame: Any) -> None:
        self.signal = self._received = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    # ------------------------------------------------------------------ after each step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes a bad loss, and agrees with the other ranks; a collective."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and self._bad_step is not None:
            is_first = ~torch.isfinite(loss.detach()).all() & (self._bad_step < 0)
            self._bad_step = torch.where(is_first, max(trainer.global_step, 1), self._bad_step)
        if pl_module.device.type == "cpu" or trainer.global_step % _STEPS_ON_DEVICES == 0:
            self.agree(trainer)

    def agree(self, trainer: Trainer) -> None:
        """Takes the decision of all ranks; a collective. Called before each checkpoint, too.

        Raises:
            ValueError: a loss of a step since the last agreement was NaN or infinite, on any rank.
        """
        bad = -1 if self._bad_step is None else int(self._bad_step)
        # The earliest bad step of all ranks: the maximum of the negative ones.
        verdict = torch.tensor([self._received, -bad if bad > 0 else _NO_STEP])
        if trainer.world_size > 1 and dist.is_initialized():
            verdict = verdict.to(trainer.strategy.root_device)
            dist.all_reduce(verdict, dist.ReduceOp.MAX)
        number, first_bad = verdict.tolist()
        if first_bad != _NO_STEP:
            raise ValueError(
                f"training: the loss of step {-first_bad} is NaN or infinite, expected a number (a smaller "
                "model.learning_rate, trainer.gradient_clip_val, or other data); checkpoints of earlier steps are kept"
            )
        if number:
            self.signal, self.is_agreed = number, True
            # Lightning ends after the batch, or after the epoch where it was the last one, on every rank.
            trainer._signal_connector.received_sigterm = True


def _what_follows(number: int, saves: bool) -> str:
    saving = " and is saved" if saves else ""
    if number == signal.SIGINT:
        return f"Ctrl-C: the run stops after this step{saving}; Ctrl-C once more ends it at once"
    return f"{signal.Signals(number).name}: the run stops after this step{saving}"
