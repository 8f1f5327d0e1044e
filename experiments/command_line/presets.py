"""Presets: configs of ``configs/presets`` that are called by their name alone, those of the user's folder first."""

from __future__ import annotations

from pathlib import Path

from experiments.command_line.project import PROJECT
from synfer.foundation.file_reading import FileError, did_you_mean

FOLDER = Path("configs") / "presets"


def presets() -> dict[str, Path]:
    """Returns name → file; one of the folder that the user is in takes the place of ours."""
    found: dict[str, Path] = {}
    for folder in (PROJECT / FOLDER, FOLDER):
        found |= {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return found


def preset_path(name: str) -> Path:
    """Returns the config that a name stands for.

    Raises:
        ValueError: no such preset; those that there are are named.
    """
    known = presets()
    if name not in known:
        found = f"found no preset '{name}'" if name else "found no name behind --preset"
        raise FileError(f"{found}, expected one of {', '.join(known)}{did_you_mean(name, list(known))}")
    return known[name]


def summary_of(path: Path) -> str:
    """Returns the first sentence of the comment that a preset begins with; "" where it has none."""
    comment: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return " ".join(comment).partition(". ")[0].rstrip(".")
