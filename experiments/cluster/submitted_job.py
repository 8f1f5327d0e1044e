"""As which SLURM job a run folder was submitted, noted in the folder itself (``submitted.json``)."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from synfer.foundation.json_file import read_json_if_whole, write_json

SUBMITTED = "submitted.json"


def submitted_job(run_dir: Path) -> str | None:
    """Returns the number of the SLURM job that a run was last submitted as; None = never."""
    found = read_json_if_whole(run_dir / SUBMITTED).get("job")
    return None if found is None else str(found)


def note_submitted_job(run_dir: Path, job: str, command: str | None = None) -> None:
    """Notes as which SLURM job a run was submitted; in a file of its own, for the job may have begun already.

    Args:
        run_dir: the run folder, which is made where it is missing.
        job: its number.
        command: that of sbatch, for people to read.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    more = {} if command is None else {"command": command}
    write_json(run_dir / SUBMITTED, {"job": job, "submitted": now, **more})
