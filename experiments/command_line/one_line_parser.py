"""A parser of words that says in one line what it cannot take, and numbers that are numbers."""

from __future__ import annotations

import argparse
import math
from typing import NoReturn

from experiments.command_line.errors import report


class OneLineParser(argparse.ArgumentParser):
    """A parser of the standard library whose errors are one line on stderr, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Prints one line and exits."""
        report(f"{message} (see {self.prog} --help)")
        raise SystemExit(2)


def finite_number(text: str) -> float:
    """Returns a number that is neither infinite nor NaN.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number")
    return number


def whole_number(text: str) -> int:
    """Returns a whole number.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a whole number") from None
