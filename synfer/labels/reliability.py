"""How far to trust each voter in each class: a table measured on a validation split, kept as JSON, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from synfer.foundation.file_reading import reading
from synfer.foundation.json_file import read_json, write_json

_PSEUDO_COUNT = 2.0


def class_precision(confusion: Tensor) -> Tensor:
    """Returns p(a face shows c | the voter says c) for each class, float64 (K,) in (0, 1).

    Shrunk towards the voter's accuracy by two pseudo-counts, so that a class it never names has a weight too.

    Args:
        confusion: counts (K, K), rows true, columns the voter's.
    """
    counts = confusion.cpu().double()
    accuracy = (counts.diagonal().sum() + 1) / (counts.sum() + 2)
    return (counts.diagonal() + _PSEUDO_COUNT * accuracy) / (counts.sum(0) + _PSEUDO_COUNT)


def write_reliability(
    path: Path, confusions: Mapping[str, Tensor], fingerprints: Mapping[str, Sequence[str]], names: Sequence[str]
) -> Path:
    """Writes {voter: {"fingerprints": […], "precision": {expression: p}, "rows": n}}.

    Args:
        path: where to.
        confusions: voter → counts (K, K).
        fingerprints: voter → fingerprints of its weights (one per fold).
        names: K expressions.
    """
    table = {
        voter: {
            "fingerprints": list(fingerprints[voter]),
            "precision": dict(zip(names, [round(p, 6) for p in class_precision(confusion).tolist()], strict=True)),
            "rows": int(confusion.sum()),
        }
        for voter, confusion in confusions.items()
    }
    return write_json(path, table)


def read_reliability(path: str | Path, fingerprints: Mapping[str, Sequence[str]], names: Sequence[str]) -> Tensor:
    """Returns the weights of voters, float32 (V, K), found by the fingerprints of their weights.

    Args:
        path: a file of :func:`write_reliability`.
        fingerprints: voter → fingerprints of its weights; all of them must belong to one entry.
        names: the K expressions that are wanted.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such table, or a voter or an expression that it does not hold.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"reliability table '{path}': no such file, expected one written by train.py validate")
    with reading("reliability table", path, "one written by train.py validate"):
        table = read_json(path, "reliability table", "one written by train.py validate")
        entries = [(name, set(entry["fingerprints"]), dict(entry["precision"])) for name, entry in table.items()]
    weights = []
    for voter, own in fingerprints.items():
        found = [precision for _, known, precision in entries if own and set(own) <= known]
        if not found:
            raise ValueError(
                f"reliability table '{path}': found no entry of voter '{voter}' (its weights are others than those "
                f"that were measured), it holds {', '.join(name for name, _, _ in entries) or 'nothing'}"
            )
        missing = [name for name in names if name not in found[0]]
        if missing:
            raise ValueError(
                f"reliability table '{path}': voter '{voter}' was not measured on '{missing[0]}', expected "
                f"{', '.join(names)}"
            )
        weights.append([float(found[0][name]) for name in names])
    return torch.tensor(weights, dtype=torch.float32)
