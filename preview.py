"""A look at a data set before anything is trained on it: ``python preview.py --config configs/data/<name>.yaml``."""

from experiments.preview.preview_command import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
