"""Compares finished runs: ``python compare.py runs/ [--control KEY=VALUE] [--metric val/accuracy] [--out FOLDER]``."""

from experiments.compare.compare_command import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
