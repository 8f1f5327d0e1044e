"""Where the programs, their configs and the packages lie, in a checkout or installed."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout, or the folder that the packages are installed into."""


SHIPPED_GENERATOR = "demo/weights/drawn_generator"
"""The small generator of drawn faces that comes with the project."""

SHIPPED_JUDGE = "demo/weights/drawn_judge"
"""A small judge of drawn faces, which has seen none of that generator's training faces."""


def shipped(path: str | Path) -> Path:
    """Returns a path as it is where something lies there, else the file of this name that comes with the project.

    So that ``configs/classifier/tiny.yaml`` means the same from any folder, and a user's own file of that name wins.
    """
    path = Path(path)
    own = PROJECT / path
    return own if not path.is_absolute() and not path.exists() and own.exists() else path
