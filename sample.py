"""Faces from a trained generator: ``python sample.py --expression happy --seed 1 --out happy.png``."""

from experiments.sample.sample_command import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
