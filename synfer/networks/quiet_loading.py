"""Loading of other libraries' models without their reports: what is wrong with a file is told in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Has transformers and diffusers print errors alone, and no progress bars, inside the ``with`` block."""
    from transformers.utils import logging

    loggings = (logging, sys.modules.get("diffusers.utils.logging"))  # who has not imported diffusers need not wait
    with ExitStack() as stack:
        for each in loggings:
            if each is not None:
                stack.enter_context(_quiet(each))
        yield


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
