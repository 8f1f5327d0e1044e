"""One run: ``python train.py fit | validate | test | predict --config … --data.synthetic_ratio 0.5 …``."""

from experiments.command_line.cli import SynferCLI
from experiments.command_line.train_command import main, parse

__all__ = ["SynferCLI", "main", "parse"]

if __name__ == "__main__":
    main()
