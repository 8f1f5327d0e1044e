"""One finished run, wherever it was read from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.command_line.moved_names import with_present_settings
from experiments.compare.seeds import Seed, seed_of
from synfer.faces.expressions import LABEL_SPACES, resolve_label_space

Value = str | int | float | bool | None
"""A setting: lists are held as their JSON text."""

History = list[tuple[int, float]]
"""(optimiser step, value) of one metric, in the order of logging."""

LABEL_SPACE_KEY = "model.label_space"


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
        counts: samples trained on: {"real": n, "synthetic": n, …}.
        samples: pictures that the run wrote.
        wandb_id: id of its W&B run, for recognising a run that was read twice.
        from_wandb: whether it was read from W&B.
        sweep_keys: parameters of the sweep that started it, as ``sweep.py`` recorded them; () without one.
        started: when the training began, in seconds since 1970; None where nobody knows.
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
    counts: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[Path, ...] = ()
    wandb_id: str | None = None
    from_wandb: bool = False
    sweep_keys: tuple[str, ...] = ()
    started: float | None = None

    @property
    def repetition(self) -> Seed | None:
        """What tells it from its repetitions; None where it recorded no seed."""
        return seed_of(self.seed, self.config.get("data.seed"))

    @property
    def label_space(self) -> tuple[str, ...]:
        """Ordered names of the expressions; () where the configuration has none."""
        return label_space_of(self.config)


def flatten(config: Mapping[str, Any]) -> dict[str, Value]:
    """Returns settings by dotted key as on the command line: ``{"data": {"batch_size": 8}}`` → ``data.batch_size``.

    Keys may be nested, dotted or joined by slashes (as W&B shows them); ``init_args`` is left out, for the command line
    does without it. A key that has moved is today's, so that old and new runs compare. The label space is held by its
    name where it has one, so that two spellings of it are equal.
    """
    flat: dict[str, Value] = {}

    def add(prefix: str, node: Any) -> None:
        if isinstance(node, Mapping) and node:
            for name, child in node.items():
                add(f"{prefix}.{name}" if prefix else str(name), child)
        else:
            key = ".".join(part for part in prefix.replace("/", ".").split(".") if part != "init_args")
            flat[key] = node if isinstance(node, (str, int, float, bool, type(None))) else json.dumps(node, default=str)

    for name, child in config.items():
        if not str(name).startswith("_"):  # W&B's own entries
            add(str(name), child)
    flat = with_present_settings(flat)
    space = label_space_of(flat)
    if space:
        flat[LABEL_SPACE_KEY] = next((name for name, names in LABEL_SPACES.items() if names == space), ", ".join(space))
    return flat


def label_space_of(flat: Mapping[str, Value]) -> tuple[str, ...]:
    """Returns the names of ``model.label_space``, a name, a JSON list or names joined by commas; () without one."""
    given = flat.get(LABEL_SPACE_KEY)
    if not isinstance(given, str) or not given:
        return ()
    try:
        if given.startswith("["):
            return resolve_label_space(json.loads(given))
        return resolve_label_space(given.split(", ") if "," in given else given)
    except ValueError:
        return ()
