"""A page to play with a generator and a classifier: ``python serve.py``."""

from experiments.serve.serve_command import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
