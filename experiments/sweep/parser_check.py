"""Every key and value of a sweep is known to train.py, before anything runs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

from experiments.sweep.sweep_error import SweepError
from experiments.sweep.sweep_file import SweepFile
from experiments.sweep.sweep_run import SweepRun


def check_against_parser(sweep: SweepFile, runs: Sequence[SweepRun]) -> None:
    """Parses enough of the runs that each value of each parameter has been parsed once.

    Raises:
        SweepError: train.py's own line about an unknown key, a wrong type or a missing config.
    """
    # Imported where it is used: it takes seconds, and a file that is not a sweep is told at once.
    from experiments.command_line.train_command import parse

    seen: set[str] = set()
    for run in runs:
        values = {f"{key}={value!r}" for key, value in run.swept.items()}
        if run is not runs[0] and values <= seen:
            continue
        seen |= values
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                parse(run.command()[len(run.launcher) :])
        except SystemExit:
            lines = [line for line in said.getvalue().splitlines() if line.strip()]
            line = lines[-1].removeprefix("error: ") if lines else "train.py refuses it"
            raise SweepError(f"{sweep.path}: {line}") from None
