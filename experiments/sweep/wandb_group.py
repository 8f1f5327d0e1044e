"""Where the runs of a sweep are together on W&B, or what sends them there."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from synfer.runs.wandb_login import choose_mode, web_address

DEFAULT_PROJECT = "synfer"
"""``wandb.project`` where nothing names another."""


def group_lines(environment: Mapping[str, str], sweep_dir: Path, options: Sequence[str] = ()) -> list[str]:
    """Returns a line with the address of the group, or with the command that sends what is kept offline.

    Args:
        environment: variables of every run.
        sweep_dir: folder of the runs.
        options: words of a run's command line.

    Returns:
        One line; [] where W&B is switched off.
    """
    asked = environment.get("WANDB_MODE", "")
    mode = asked if asked in ("offline", "disabled") else choose_mode()
    if _value(options, "--trainer.logger") in ("false", "False") or mode == "disabled":
        return []
    if mode == "offline":
        folder = shlex.quote(str(sweep_dir))
        return [f"W&B: kept offline in {folder}/*/wandb; to send it: wandb sync {folder}/*/wandb/offline-run-*"]
    known = {**os.environ, **environment}
    project = known.get("WANDB_PROJECT") or _value(options, "--wandb.project") or DEFAULT_PROJECT
    group = _value(options, "--wandb.group") or known.get("WANDB_RUN_GROUP", "")
    entity = known.get("WANDB_ENTITY")
    if not entity:  # only the server knows whose key it is
        return [f"W&B: group '{group}' in the project '{project}' of your default entity, {web_address()}"]
    return [f"W&B: {web_address()}/{quote(entity)}/{quote(project)}/groups/{quote(group, safe='')}"]


def _value(options: Sequence[str], name: str) -> str | None:
    """Returns the last value of an option, given as ``--name=value`` or ``--name value``."""
    found = None
    for word, following in zip(options, [*options, ""][1:], strict=True):
        if word == name:
            found = following
        elif word.startswith(f"{name}="):
            found = word.removeprefix(f"{name}=")
    return found
