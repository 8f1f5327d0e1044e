"""Settings by their keys of the command line: the one flattener, for W&B, sweeps and comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from synfer.faces.expressions import LABEL_SPACES, resolve_label_space
from synfer.foundation.renamed_settings import with_present_keys

Value = str | int | float | bool | None
"""A setting that can be compared: lists are held as their JSON text."""

LABEL_SPACE_KEY = "model.label_space"
_PLAIN = (str, int, float, bool, type(None))


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings by their key of the command line: ``{"data": {"batch_size": 8}}`` → ``data.batch_size``.

    ``init_args`` is left out, as on the command line. Lists of plain values stay lists; others become JSON text, which
    W&B can filter by as well.
    """
    flat: dict[str, Any] = {}

    def add(prefix: str, node: Any) -> None:
        if isinstance(node, Mapping) and node:
            for name, child in node.items():
                add(".".join(part for part in (prefix, str(name)) if part and part != "init_args"), child)
        elif isinstance(node, _PLAIN):
            flat[prefix] = node
        elif isinstance(node, (list, tuple)) and all(isinstance(value, _PLAIN) for value in node):
            flat[prefix] = list(node)
        else:
            flat[prefix] = json.dumps(node, default=str)

    add("", config)
    return flat


def plain_settings(config: Mapping[str, Any]) -> dict[str, Value]:
    """Returns the same with values that can be told apart and counted, whatever shape the settings come in.

    Keys may be nested, dotted or joined by slashes (as W&B shows them), and W&B's own entries (``_wandb``) are left
    out; settings go by their names of now. Lists become JSON text. The label space is held by its name where it has
    one, so that two spellings of it are equal.
    """
    flat: dict[str, Value] = {}
    for key, value in flat_settings({name: v for name, v in config.items() if not str(name).startswith("_")}).items():
        short = ".".join(part for part in key.replace("/", ".").split(".") if part != "init_args")
        flat[short] = value if isinstance(value, _PLAIN) else json.dumps(value, default=str)
    flat = with_present_keys(flat)
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
