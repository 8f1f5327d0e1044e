"""One finished run, wherever it was read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from experiments.compare.seeds import Seed, seed_of
from synfer.runs.flat_settings import Value, label_space_of
from synfer.runs.metrics_table import History


@dataclass(frozen=True)
class Run:
    """What a comparison needs to know of a run.

    Attributes:
        name: path of the run folder, or ``entity/project/id`` on W&B.
        config: flat settings by the key of the command line (``model.learning_rate``, without ``init_args``).
        seed: ``seed_everything``; None where it was not recorded.
        status: "finished" for a whole run (also one that its patience has stopped), else as recorded: "running",
            "failed", "stopped (time)", "interrupted (SIGTERM)", …
        task: fit, validate, test or predict; "" where it was not recorded.
        last: metric name → value at the end of the run, shares in [0, 1].
        best: the same for the best value, of those metrics for which the run recorded one.
        history: gives all logged values of a metric. Raises ValueError (one line) where they cannot be read.
        splits: split name → hash of its rows; {} where it was not recorded.
        rows: split name → file with its rows; {} where there are none.
        counts: samples trained on: {"real": n, "synthetic": n, …}.
        samples: pictures that the run wrote.
        wandb_id: id of its W&B run, for recognising a run that was read twice.
        from_wandb: whether it was read from W&B.
        sweep_keys: parameters of the sweep that started it, as ``sweep.py`` recorded them; () without one.
        started: when the training began, in seconds since 1970; None where nobody knows.
        wall_s: seconds that it took, over all its attempts; None where nobody knows.
        folder: its folder; None of a run on W&B.
        misclassified: pictures of the faces that its classifier was most wrongly sure of.
    """

    name: str
    config: Mapping[str, Value]
    seed: int | None
    status: str
    task: str
    last: Mapping[str, float]
    history: Callable[[str], History]
    best: Mapping[str, float] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, Path] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[Path, ...] = ()
    wandb_id: str | None = None
    from_wandb: bool = False
    sweep_keys: tuple[str, ...] = ()
    started: float | None = None
    wall_s: float | None = None
    folder: Path | None = None
    misclassified: tuple[Path, ...] = ()

    @property
    def repetition(self) -> Seed | None:
        """What tells it from its repetitions; None where it recorded no seed."""
        return seed_of(self.seed, self.config.get("data.seed"))

    @property
    def may_be_shown(self) -> bool:
        """Whether pictures of its data may leave its folder: faces that were drawn are nobody's."""
        return str(self.config.get("data.reader.class_path", "")).rpartition(".")[2] == "DrawnReader"

    @property
    def label_space(self) -> tuple[str, ...]:
        """Ordered names of the expressions; () where the configuration has none."""
        return label_space_of(self.config)
