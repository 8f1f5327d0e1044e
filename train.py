"""One run: ``python train.py fit | validate | test | predict --config … --data.synthetic_ratio 0.5 …``."""

from typing import Any

from experiments.command_line.train_program import main

__all__ = ["SynferCLI", "main", "parse"]  # noqa: F822  (two of them on first use)


def __getattr__(name: str) -> Any:
    """Imports what takes seconds when it is asked for: a misspelt key is told without it."""
    if name not in ("SynferCLI", "parse"):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from experiments.command_line import train_command

    return getattr(train_command, name)


if __name__ == "__main__":
    main()
