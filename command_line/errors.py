"""What a user is told when something goes wrong: one line and an exit code.

Imports neither torch nor Lightning, so that programs without them share it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def one_line_errors(exit_code: int, any_origin: bool = False) -> Iterator[None]:
    """Turns an error that our code raised on purpose into one line on stderr and an exit code.

    Args:
        exit_code: 2 for the configuration, 1 for the run.
        any_origin: take errors of other packages as well, such as timm's for an unknown backbone.

    Raises:
        SystemExit: with the exit code, after the line. An error of another kind or origin passes through, and so does
            every error under ``SYNFER_DEBUG=1``.
    """
    try:
        yield
    except Exception as error:
        expected = isinstance(error, (ValueError, TypeError, RuntimeError, OSError)) or _is_misconfiguration(error)
        if debugging() or not expected or not (any_origin or _meant_for_the_user(error)):
            raise
        report(str(error))
        raise SystemExit(exit_code) from None


def report(message: str) -> None:
    """Prints one line on stderr; other ranks wait first, for rank 0 mostly meets the same error and ends them."""
    rank = this_rank()
    if rank > 0:
        time.sleep(2)
    # An error in a data worker arrives with the worker's whole traceback in its text; the last line is the error.
    if "Original Traceback" in message:
        message = message.strip().splitlines()[-1].partition(": ")[2]
    line = " ".join(_without_type_listing(message).split())
    print(f"error: {line}" if rank == 0 else f"error on rank {rank}: {line}", file=sys.stderr, flush=True)


def debugging() -> bool:
    """Whether ``SYNFER_DEBUG=1`` asks for tracebacks."""
    return os.environ.get("SYNFER_DEBUG", "") not in ("", "0")


def this_rank() -> int:
    """Returns the rank of this process; 0 before ranks are known."""
    module = sys.modules.get("lightning.fabric.utilities.rank_zero")
    return getattr(getattr(module, "rank_zero_only", None), "rank", None) or 0


def _without_type_listing(message: str) -> str:
    """Returns a parser's message without what it says about Python types that the value could also have had."""
    lines = [line.strip() for line in message.splitlines()]
    noise = (
        "Subtypes:",
        "Errors:",
        "Given value type:",
        "Given value: Namespace",
        "Given value: NestedArg",
        "Does not validate against any of the Union",
        "- Does not validate against any of the Union",
        "- Expected a <class 'NoneType'>",
    )
    kept = [line for line in lines if not line.startswith(noise)]
    return re.sub(r"<class '(\w+)'>", r"\1", " ".join(kept).removeprefix("- "))


def _is_misconfiguration(error: BaseException) -> bool:
    return any(kind.__name__ == "MisconfigurationException" for kind in type(error).__mro__)  # Lightning's


def _meant_for_the_user(error: BaseException) -> bool:
    """Whether an error was raised by a line of ours (also inside a data worker) or names a file that is missing."""
    if isinstance(error, FileNotFoundError) or _is_misconfiguration(error):
        return True
    if "Original Traceback" in str(error):
        places = [line.split('"')[1] for line in str(error).splitlines() if line.strip().startswith('File "')]
        origin = places[-1] if places else ""
    else:
        frames = traceback.extract_tb(error.__traceback__)
        origin = frames[-1].filename if frames else ""
    path = Path(origin)
    return path.is_relative_to(PROJECT) and "site-packages" not in path.parts
