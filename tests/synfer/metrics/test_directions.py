"""One table says which values of a metric are better: every name that is logged is in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lightning_modules
from synfer.metrics.directions import better, direction, is_known
from synfer.runs.run_format import take_best

PROJECT = Path(lightning_modules.__file__).parents[1]
GROUPS = ("train", "val", "test", "throughput", "data", "synthesis", "pseudo_labels")
PREFIXES = {"fer", "judge_on_real"}  # to which "_accuracy" and "_recall/<expression>" are added
NO_NUMBERS = {"synthesis/faces", "pseudo_labels/flow"}  # tables


def _texts(tree: ast.AST) -> Iterator[str]:
    """Returns all strings of a module; what an f-string fills in is "…"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_name_in_the_sources_is_known() -> None:
    """Names whose own part is filled in at run time are checked where tests log them (tests/conftest.py)."""
    found = set()
    for folder in ("callbacks", "lightning_modules", "synfer/metrics"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            for text in _texts(ast.parse(path.read_text())):
                group, _, rest = text.partition("/")
                own = rest.split("/")[0]
                is_name = group in GROUPS and own and not set(text) & set(" *.") and text not in NO_NUMBERS
                if is_name and "…" not in own:
                    found.add(f"{group}/{own}_recall" if own in PREFIXES else f"{group}/{own}")
    assert {"val/loss", "test/frechet", "data/effective_ratio", "test/fer_recall"} <= found
    assert not [name for name in sorted(found) if not is_known(name)]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("val/accuracy", "higher"),
        ("val/recall_new/anger", "higher"),
        ("val/agreement/loss_net", "higher"),  # the voter's name says nothing
        ("test/au_f1_on_real_mean", "higher"),
        ("test/improved_precision/judge", "higher"),
        ("val_loss", "lower"),
        ("train/loss_synthetic", "lower"),
        ("val/ece_uncalibrated", "lower"),
        ("test/frechet/accuracy_net", "lower"),
        ("val/harmed", "lower"),
        ("test/near_copies", "lower"),
        ("synthesis/near_copies_real", "lower"),
        ("test/expression_gain", "higher"),
        ("test/score/loss_of_fear", "higher"),  # a user's score
        ("test/score_lower/accuracy", "lower"),
        ("test/source_similarity", None),
        ("test/kid_std/judge", None),
        ("val/temperature", None),
        ("val/rows_left_out", None),
        ("test/nearest_training/ratio/judge", None),
        ("val/glow", None),
        ("val/loss_of_accuracy", None),
    ],
)
def test_directions(metric: str, expected: str | None) -> None:
    assert direction(metric) == expected
    assert better(metric, 1.0, 2.0) == {"higher": 2.0, "lower": 1.0, None: None}[expected]


def test_the_best_that_a_run_records() -> None:
    best: dict[str, float] = {}
    validations: list[dict[str, Any]] = [
        {"val/accuracy": 0.5, "val/ece_uncalibrated": 0.2, "val/temperature": 2.0},
        {"val/accuracy": 0.75, "val/ece_uncalibrated": 0.25, "val/temperature": 3.0},
        {"val/accuracy": 0.5, "val/ece_uncalibrated": 0.125, "val/temperature": 1.0},
        {"val/accuracy": 0.25, "val/ece_uncalibrated": 0.5, "val/temperature": 1.0},
    ]
    for metrics in validations:
        take_best(best, metrics)
    assert best == {"val/accuracy": 0.75, "val/ece_uncalibrated": 0.125}
