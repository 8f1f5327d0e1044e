"""Expressions of the faces in pictures: ``python label.py PATH… --checkpoint RUN --out labels.csv``."""

from experiments.label.label_command import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
