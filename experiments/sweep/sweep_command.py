"""Many runs from one W&B sweep file: ``python sweep.py configs/sweeps/<name>.yaml``, here or on SLURM.

The same file works with ``wandb sweep`` and ``wandb agent``; this program needs no account. It takes grids: the random
and Bayesian methods stay with W&B.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml

from experiments.command_line.commands import called_as
from experiments.sweep.grid import file_name
from experiments.sweep.local_runner import LocalRunner
from experiments.sweep.parser_check import check_against_parser
from experiments.sweep.progress_table import make_console, progress_table, rows_from_folders
from experiments.sweep.slurm_runner import EXECUTORS, REQUEUES, submit
from experiments.sweep.sweep_error import SweepError
from experiments.sweep.sweep_file import SweepFile, read_sweep_file
from experiments.sweep.sweep_run import SweepRun, plan_runs, refuse_changed
from experiments.sweep.wandb_group import group_lines


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SweepError(message)


def main(args: list[str] | None = None) -> int:
    """Runs one sweep.

    Args:
        args: command line without the program's name; None = ``sys.argv[1:]``.

    Returns:
        0 when every run has finished (or was submitted, or is only shown), 1 when a run failed, 2 for bad input (one
        line has been printed), 128 + signal when stopped.
    """
    given = sys.argv[1:] if args is None else args
    own, extra = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    try:
        options = _parser().parse_args(own)
        return _sweep(options, extra)
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:  # before the runs, or while an array job is waited for
        return 130


def _sweep(options: argparse.Namespace, extra: list[str]) -> int:
    console = make_console()
    sweep = read_sweep_file(options.file)
    sweep_dir = options.sweep_dir or Path("runs") / file_name(sweep.name)
    runs = plan_runs(sweep, sweep_dir, extra)
    if options.status:
        console.print(progress_table(rows_from_folders(runs), sweep.metric))
        return 0
    devices = _devices(options.devices)
    jobs = options.jobs or max(1, len(devices))
    parameters = _slurm_parameters(options.slurm_parameter)
    check_against_parser(sweep, runs)
    refuse_changed(runs, sweep_dir)
    if sweep.early_terminate:
        print(f"{sweep.path}: early_terminate stays with W&B, every run goes to its end", file=sys.stderr)
    environment = _environment(sweep, sweep_dir)
    if options.dry_run:
        _print_commands(runs, environment)
        return 0
    where = group_lines(environment, sweep_dir, runs[0].options if runs else ())
    _say(where)
    if options.slurm or options.slurm_executor:
        executor = options.slurm_executor or "slurm"
        outcome = submit(
            sweep, runs, sweep_dir, environment, executor, options.jobs, parameters, options.requeues, console
        )
        _say(where)
        return outcome
    if options.devices is None and jobs > 1 and "CUDA_VISIBLE_DEVICES" not in environment:
        devices = _visible_devices()
    outcome = LocalRunner(runs, jobs, devices, environment, sweep.metric, console).run()
    _say([*where, f"compare them: python compare.py {shlex.quote(str(sweep_dir))}"])
    return outcome


def _say(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=called_as("sweep", sys.argv[0]),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Options after -- go to every run: python sweep.py FILE -- --trainer.max_steps 10",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="sweep file in W&B's format")
    parser.add_argument("--sweep_dir", type=Path, help="where the run folders go (default: runs/<name of the sweep>)")
    parser.add_argument(
        "--jobs", type=_at_least_one, help="runs at a time (default: one for each of --devices; SLURM: no bound)"
    )
    parser.add_argument(
        "--devices",
        help="GPUs such as 0,1: each run sees one of them (default: with several --jobs one of those there, in turn; "
        "else a run sees them all)",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the commands of what is left to do")
    parser.add_argument("--status", action="store_true", help="print the table of what has been done")
    parser.add_argument("--slurm", action="store_true", help="submit an array job through submitit")
    parser.add_argument(
        "--requeues",
        type=_at_least_one,
        default=REQUEUES,
        help=f"how often a run out of time is queued again on SLURM, and goes on (default: {REQUEUES})",
    )
    parser.add_argument("--slurm_executor", choices=EXECUTORS, help="submitit's; local and debug need no scheduler")
    parser.add_argument(
        "--slurm_parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="submitit's, repeated: timeout_min=600 gpus_per_node=1 cpus_per_task=8 slurm_partition=gpu …",
    )
    return parser


def _print_commands(runs: list[SweepRun], environment: dict[str, str]) -> None:
    """Prints one line of shell per run that is left, a comment for the others."""
    prefix = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    for run in runs:
        status = run.status()
        if status in ("finished", "running"):
            print(f"# {run.name}: {status}")
        else:
            print(f"{prefix} {shlex.join(run.command(run.checkpoint()))}".strip())


def _environment(sweep: SweepFile, sweep_dir: Path) -> dict[str, str]:
    """Returns the variables of every run: the file's own, and W&B's that keep the runs together.

    The group is the folder of the sweep, so that other settings in another folder are another group. What the user has
    set wins over both.
    """
    wandb = {
        "WANDB_RUN_GROUP": sweep_dir.resolve().name,
        "WANDB_PROJECT": sweep.project,
        "WANDB_ENTITY": sweep.entity,
    }
    return {**sweep.environment(), **{name: os.environ.get(name) or value for name, value in wandb.items() if value}}


def _devices(text: str | None) -> list[str]:
    devices = [] if text is None else [device.strip() for device in text.split(",")]
    if not all(devices) or len(set(devices)) < len(devices):
        raise SweepError(f"--devices '{text}', expected different devices such as 0,1")
    return devices


def _visible_devices() -> list[str]:
    """Returns the GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them; none without a GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip()]
    import torch  # takes seconds, which --status need not wait for

    return [str(device) for device in range(torch.cuda.device_count())]


def _slurm_parameters(pairs: list[str]) -> dict[str, Any]:
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise SweepError(f"--slurm_parameter '{pair}', expected NAME=VALUE")
        parameters[name] = yaml.safe_load(value)
    return parameters


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a whole number of at least 1")
    return int(text)
