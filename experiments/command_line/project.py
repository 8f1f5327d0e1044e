"""Where the programs, their configs and the packages lie."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout, or the folder that the packages are installed into."""
