"""When a run says how far it is: an epoch is over, a validation, a test or a synthesis goes on, the run has ended."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from callbacks.recording.progress_display import Display, Task, choose_display
from lightning_modules.trainer_access import data_of
from synfer.runs.metric_text import in_order, metric_lines, number_text
from synfer.runs.time_text import time_text
from synfer.synthesis.faces import Faces

TRAIN_LOSSES = ("train/loss", "train/loss_epoch", "train/loss_step")
"""The first of these that a model logs is its training loss of an epoch."""

MAX_METRICS = 4
"""Validation metrics in one line, where a model marks none for the progress bar."""


class RunProgress(Callback):
    """Says how far the whole run is, on rank 0.

    A terminal shows a bar of the whole fit with its time left, and one of what is at work. A log gets a line per epoch
    and per validation inside an epoch: steps, time used and left, training loss, validation metrics, images/s; and
    where these are far apart, a line now and then. Time left is steps left at the mean speed of this attempt,
    validations included and the first filling of a pool not, or what ``trainer.max_time`` leaves.

    A step costs a look at the clock; figures are made only where they are shown. All ranks read the metrics at the end
    of an epoch, since reading may reduce them over ranks.

    Args:
        bar: whether a terminal gets a bar that moves; lines stay lines.
        table: whether ``test`` and ``validate`` print their metrics at the end.
        display: where to; None = stdout of rank 0.
    """

    def __init__(self, bar: bool = True, table: bool = True, display: Display | None = None) -> None:
        self.bar, self.table = bar, table
        self.display = display or Display()
        self._is_given = display is not None
        self._began = self._line_began = self._validation_s = 0.0
        self._first_step = 0
        self._images = 0
        self._validated = False
        self._figures_of_epoch: tuple[list[str], str] | None = None
        self._total: float = math.inf
        self._open = contextlib.ExitStack()
        self._task: Task | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to show anything."""
        if not self._is_given:
            self.display = choose_display(self.bar, trainer.is_global_zero)

    # ------------------------------------------------------------------ fit

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what is trained, and where."""
        self._say_model(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the line of the epoch before; starts the clock, at the first one once the pool has been filled."""
        self._say_epoch(trainer)
        self._start_clock(trainer)
        self._begin_line(trainer)
        self.display.run(self._share(trainer), lambda: self._figures(trainer))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the clock of a run that goes on in the middle of an epoch: Lightning tells of no start of that one."""
        if not self._began:
            self._start_clock(trainer)
            self._begin_line(trainer)

    def _start_clock(self, trainer: Trainer) -> None:
        if self._began:
            return
        self._began, self._first_step = time.monotonic(), trainer.global_step
        self._total = float(trainer.estimated_stepping_batches)
        if self._total < 0:  # of a stream without end, and no bound on the steps
            self._total = math.inf

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar of the run."""
        self.display.run(self._share(trainer), lambda: self._figures(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the figures of the epoch; its training loss is known once the module has had its turn."""
        self._figures_of_epoch = [self._place(trainer), self._times(trainer)], self._speed(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the line of the last epoch."""
        self._say_epoch(trainer)

    def _say_epoch(self, trainer: Trainer) -> None:
        if self._figures_of_epoch is not None:
            self._say_line(trainer, *self._figures_of_epoch)
            self._figures_of_epoch = None

    def _say_line(self, trainer: Trainer, line: list[str], speed: str) -> None:
        """Writes a line with the metrics, which every rank reads."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = dict(trainer.progress_bar_metrics)
        loss = next((name for name in TRAIN_LOSSES if name in metrics), None)
        line += [f"{name} {number_text(metrics[name])}" for name in ([loss] if loss else [])]
        if self._validated:
            held = [name for name in metrics if name.startswith("val/")]
            chosen = [n for n in held if n in shown] or [n for n in in_order(held) if n.count("/") == 1][:MAX_METRICS]
            line += [f"{name} {number_text(metrics[name])}" for name in in_order(chosen)]
        self.display.say(" · ".join(word for word in [*line, speed] if word))
        self._begin_line(trainer)

    def _speed(self, trainer: Trainer) -> str:
        """Returns images of all ranks per second since the last line, validations left out."""
        seconds = time.monotonic() - self._line_began - self._validation_s
        images = (self._counted(trainer) - self._images) * trainer.world_size
        if images <= 0 or seconds <= 0:
            return ""
        return f"{images / seconds:.{0 if images > 100 * seconds else 1}f} images/s"

    def _begin_line(self, trainer: Trainer) -> None:
        self._line_began, self._validation_s = time.monotonic(), 0.0
        self._images, self._validated = self._counted(trainer), False

    def _place(self, trainer: Trainer) -> str:
        step = trainer.global_step
        if not math.isfinite(self._total):
            return f"epoch {trainer.current_epoch + 1} · step {step}"
        epochs, batches = trainer.max_epochs, trainer.num_training_batches
        of = float(epochs) if epochs not in (None, -1) else math.inf  # type: ignore[arg-type]
        if 0 < batches < math.inf:  # fewer where the steps are counted
            of = min(of, math.ceil(self._total / math.ceil(batches / trainer.accumulate_grad_batches)))
        counted = f"/{int(of)}" if math.isfinite(of) else ""
        return f"epoch {trainer.current_epoch + 1}{counted} · step {step}/{int(self._total)}"

    def _times(self, trainer: Trainer) -> str:
        used, left = time.monotonic() - self._began, self._seconds_left(trainer)
        return f"{time_text(used)} used" + (f", {time_text(left)} left" if math.isfinite(left) else "")

    def _seconds_left(self, trainer: Trainer) -> float:
        """Returns the seconds until the end; infinite while nobody knows."""
        left, done = math.inf, trainer.global_step - self._first_step
        if done and math.isfinite(self._total):
            left = (time.monotonic() - self._began) / done * max(self._total - trainer.global_step, 0)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and (remaining := callback.time_remaining()) is not None:
                left = min(left, max(remaining, 0.0))
        return left

    def _share(self, trainer: Trainer) -> float:
        if math.isfinite(self._total) and self._total > 0:
            return trainer.global_step / self._total
        return 0.0

    def _figures(self, trainer: Trainer) -> str:
        """Returns the figures of the run while a step is over and the next one is not."""
        words = [self._place(trainer), self._times(trainer)]
        shown = trainer.progress_bar_metrics.items()
        words += [f"{n} {number_text(float(v))}" for n, v in shown if not n.startswith("val/")]  # type: ignore[arg-type]
        return " · ".join(words)

    @staticmethod
    def _counted(trainer: Trainer) -> int:
        """Returns the images that this rank has trained on."""
        counts = getattr(data_of(trainer), "counts", None) or {}
        return int(counts.get("real", 0)) + int(counts.get("synthetic", 0))

    # ------------------------------------------------------------------ validation, test, prediction

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count batches."""
        alone = trainer.state.fn == "validate"
        if alone:
            self._say_model(trainer, pl_module)
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        name = "sanity check" if trainer.sanity_checking else "validation"
        self._begin(name, _sum(batches), "batches", tells_end=alone, brief=not alone)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts a batch."""
        self._advance(1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the count; inside an epoch every rank reads the metrics and rank 0 writes a line."""
        self._validation_s += self._task.seconds if self._task else 0.0
        self._end()
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._validated = True
        if not trainer.fit_loop.epoch_loop._num_ready_batches_reached():  # else the line of the epoch comes now
            self._say_line(trainer, [self._place(trainer), self._times(trainer)], self._speed(trainer))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count batches."""
        self._say_model(trainer, pl_module)
        self._begin("test", _sum(trainer.num_test_batches), "batches")

    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the count of batches; a generator makes its faces next."""
        self._end()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count batches, or faces where faces are made."""
        self._say_model(trainer, pl_module)
        data = data_of(trainer)
        if getattr(data, "predict_split", None) == "synthesis":
            done = getattr(data, "synthesis_done", None)
            there = 0 if done is None else int((done < data.synthesis_count).sum())
            self._begin("synthetic set", data.synthesis_count, "faces", done=there)
        else:
            self._begin("prediction", _sum(trainer.num_predict_batches), "batches")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts what has been made; the other ranks make about as much as this one."""
        if self._task is None:
            return
        made = len(outputs.kept) * trainer.world_size if isinstance(outputs, Faces) else 1
        self._advance(min(made, self._task.total - self._task.done))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the count."""
        self._end()

    def _begin(self, *args: Any, **kwargs: Any) -> None:
        self._end()
        self._task = self._open.enter_context(self.display.task(*args, **kwargs))

    def _advance(self, count: float) -> None:
        if self._task is not None:
            self._task.advance(count)

    def _end(self) -> None:
        self._task = None
        self._open.close()

    # ------------------------------------------------------------------ the beginning and the end

    def _say_model(self, trainer: Trainer, module: LightningModule) -> None:
        sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
        total, trained = sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)
        fits = trainer.state.fn == "fit"
        share = f", {_short(trained)} of them trained" if fits and trained != total else ""
        ranks = f"{trainer.world_size} ranks, each on " if trainer.world_size > 1 else ""
        device = trainer.strategy.root_device
        where = f"{ranks}{device.type if trainer.world_size > 1 else device} in {trainer.precision}"
        self.display.say(f"model: {type(module).__name__}, {_short(total)} parameters{share}, on {where}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Puts the terminal back, and prints the metrics of a test."""
        self._end()
        self.display.stop()
        if self.table and stage in ("test", "validate") and trainer.state.fn != "fit":
            prefix = "test/" if stage == "test" else "val/"
            metrics = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith(prefix)}
            for line in metric_lines(metrics):
                self.display.say(line)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the terminal back."""
        self._task = None
        with contextlib.suppress(Exception):
            self._open.pop_all()  # what broke off has no end to tell
        self.display.stop()


def display_of(trainer: Trainer) -> Display:
    """Returns where a trainer's callbacks show what they are at; nowhere without a :class:`RunProgress`."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((c.display for c in callbacks if isinstance(c, RunProgress)), Display())


@contextlib.contextmanager
def face_count(trainer: Trainer, name: str, total: int, done: int = 0, tells_end: bool = True) -> Iterator[FaceCount]:
    """Shows how many faces of a number have been made, while it lasts.

    Args:
        trainer: whose display shows it.
        name: what they are made for.
        total: faces that this rank is to make.
        done: faces that were there before.
        tells_end: whether a line says at the end how long it took.
    """
    with display_of(trainer).task(name, total, "faces", done, tells_end) as task:
        yield FaceCount(task)


class FaceCount:
    """A :class:`~synfer.synthesis.hooks.FaceHook` that only counts."""

    changes_picture = False

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_faces(self, faces: Faces) -> None:
        """Counts finished faces."""
        self.task.advance(len(faces.kept))


def _sum(batches: Any) -> float:
    return float(sum(batches)) if isinstance(batches, (list, tuple)) else float(batches)


def _short(count: int) -> str:
    """Returns 60.8 K, 3.2 M, 860 M."""
    for size, letter in ((10**9, " G"), (10**6, " M"), (10**3, " K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
