"""Kills runs at random and continues them: nothing may be lost, made twice, left waiting or told wrongly.

    python tests/benchmarks/kills.py                                # 50 of a synthesis, 50 of fits: about an hour
    python tests/benchmarks/kills.py --kills 10 --seed 7 --only fit

A run has two ranks, started as ``srun`` starts tasks of a batch job, so that each start goes on by itself. At a random
moment (half of the time by the clock, half after a random step or shard) one of the ranks, drawn at random, gets
SIGKILL, SIGTERM, SIGINT, SIGUSR1 or SIGUSR2; then the job is started again as SLURM would, up to four times a run. Both
kinds of run are real ones, made small: a ``predict`` that writes faces of a tiny generator in shards of three, and a
mixed fit of 13 steps with a checkpoint of each. Ranks are forked from a process that has imported everything, which is
all that they are spared.

Prints one JSON line:

- ``kills``: that met a run at work; ``starts`` of jobs, ``runs`` that came to their end.
- ``hung``: after how many kills some rank was still there 60 s later; ``longest_s`` = the longest that one took.
- ``lost``, ``doubled``: faces of a synthesis (by sample id), steps of a fit that were trained twice or left out in what
  the last checkpoint holds; ``different``: faces, or last weights, that are not those of an undisturbed run.
- ``untrue``: records (``summary.json``, the set's rows) that say something else than what is there. Each is named.

The exit code is 1 where any of these is not 0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with threads cannot be forked
# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pyarrow.parquet as pq
import torch

from synfer.runs.run_end import is_complete
from tests.fixtures.forked_ranks import Job, looked_at
from tests.fixtures.tiny_predict import save_weights, tiny_predict
from tests.test_resume import config

PROJECT = Path(__file__).resolve().parents[2]
RANKS, STEPS, FACES = 2, 13, 60
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
LIMIT_S = 60.0
KILLS_OF_A_RUN = 4
WAITING = ["--cluster.silence_s=10", "--cluster.arrival_s=40"]
"""Shorter than by default, for so small runs; a rank that dies before it has come is waited for as a slow one is."""


@dataclass
class Outcome:
    """What has been found."""

    counts: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    remarks: list[str] = field(default_factory=list)

    def note(self, what: str, remark: str, number: int = 1) -> None:
        """Counts a fault and says which."""
        self.counts[what] += number
        self.remarks.append(f"{what}: {remark}")
        print(f"# {what}: {remark}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------- a synthesis


def synthesis(folder: Path) -> list[str]:
    """Returns the command line of a predict, without the run folder."""
    looked_at(lambda: str(save_weights(folder)))
    words = [*tiny_predict(folder, FACES, 3), f"--trainer.devices={RANKS}", "--trainer.strategy=ddp"]
    return [*words, *WAITING]


def faces_of(run: Path) -> list[tuple[str, str]]:
    """Returns sample id and hash of every row that lies in whole shards."""
    found = []
    for shard in sorted((run / "synthetic_set").rglob("*.parquet")):
        for row in pq.read_table(shard, columns=["sample_id", "image"], use_threads=False).to_pylist():
            found.append((row["sample_id"], hashlib.sha256(row["image"]["bytes"]).hexdigest()[:16]))
    return found


def check_synthesis(job: Job, outcome: Outcome, whole: list[Any], is_end: bool) -> None:
    """Compares the faces that are there with those of an undisturbed run."""
    faces, name = looked_at(lambda: faces_of(job.run)), job.folder.name
    ids, expected = [face[0] for face in faces], dict(whole)
    if doubled := len(ids) - len(set(ids)):
        outcome.note("doubled", f"{name}: {doubled} faces", doubled)
    if other := [face for face in faces if expected.get(face[0]) != face[1]]:
        outcome.note("different", f"{name}: {other[:3]}", len(other))
    if is_end and (lost := set(expected) - set(ids)):
        outcome.note("lost", f"{name}: {sorted(lost)[:3]}", len(lost))


# ---------------------------------------------------------------------- a fit


def training(folder: Path) -> list[str]:
    """Returns the command line of a mixed fit, without the run folder."""
    if (folder / "given.yaml").exists():
        given = folder / "given.yaml"
    else:
        trainer = {"strategy": "ddp", "devices": RANKS, "max_steps": STEPS}
        given = Path(looked_at(lambda: str(config(folder, "mixed", trainer=trainer))))
    slow = {"class_path": "tests.fixtures.slow_steps.SlowSteps", "init_args": {"seconds": 0.1}}
    words = ["fit", f"--config={given}", "--checkpoint.every_n_train_steps=1"]
    return [*words, f"--trainer.callbacks+={json.dumps(slow)}", *WAITING]


def last_of(run: Path) -> dict[str, Any]:
    """Returns what the last checkpoint holds: step, counts, and a hash of the weights; {} where there is none."""
    path = run / "checkpoints" / "last.ckpt"
    if not path.exists():
        return {}
    state = torch.load(path, weights_only=True)
    digest = hashlib.sha256()
    for name, tensor in sorted(state["state_dict"].items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return {"step": int(state["global_step"]), "weights": digest.hexdigest()[:16]}


def check_training(job: Job, outcome: Outcome, whole: dict[str, Any], is_end: bool) -> None:
    """Compares record and checkpoint with each other and, at the end, with an undisturbed run."""
    name, said, found = job.folder.name, job.summary, looked_at(lambda: last_of(job.run))
    if said.get("status") in ("interrupted", "finished") and said.get("steps") != found.get("step", 0):
        outcome.note("untrue", f"{name}: {said['steps']} steps recorded, checkpoint of step {found.get('step')}")
    counts = said.get("counts", {})
    if said.get("status") in ("interrupted", "finished") and counts:
        trained = counts.get("real", 0) + counts.get("synthetic", 0)
        if trained != RANKS * 8 * said["steps"]:
            outcome.note("untrue", f"{name}: {counts} after {said['steps']} steps")
    if not is_end:
        return
    for kind in ("real", "synthetic"):
        if more := counts[kind] - whole["counts"][kind]:
            outcome.note("doubled" if more > 0 else "lost", f"{name}: {counts[kind]} {kind} faces trained", abs(more))
    if found["step"] != STEPS:
        outcome.note("lost", f"{name}: the last checkpoint is of step {found['step']}", STEPS - found["step"])
    if counts != whole["counts"]:
        outcome.note("untrue", f"{name}: {counts}, expected {whole['counts']}")
    if found["weights"] != whole["weights"]:
        outcome.note("different", f"{name}: other weights than those of an undisturbed run")


# ---------------------------------------------------------------------- kills


def check_record(job: Job, outcome: Outcome, how: str | None, before: dict[str, Any]) -> None:
    """Compares what the record says of the end of a start with what was done to it.

    A start that ends before its run has begun writes nothing: the record is that of the one before.
    """
    said, codes = job.summary, job.codes
    if said == before and 0 not in codes.values():
        return
    where = f"{job.folder.name}, start {job.starts}, {how}: exit codes {codes}, {said.get('status')}"
    if not said:
        if 0 in codes.values():
            outcome.note("untrue", f"{where}: no record of a run that ended well")
        return
    if is_complete(said) and codes[0] not in (0, -signal.SIGKILL) and how is None:
        outcome.note("untrue", f"{where} but recorded as whole")
    if codes[0] == 0 and not is_complete(said):
        outcome.note("untrue", f"{where} and not whole")
    if said.get("status") == "interrupted" and said.get("reason") != how and how != "SIGKILL":
        outcome.note("untrue", f"{where}: reason {said.get('reason')}")
    if how is None and set(codes.values()) != {0}:
        outcome.note("untrue", f"{where}: an undisturbed start ended in an error; see {job.folder / 'log'}")


def progress_of(job: Job) -> int:
    """Returns how many steps or shards there are."""
    steps = job.run / "steps.jsonl"
    if steps.exists():
        return len(steps.read_text().splitlines())
    return len(list((job.run / "synthetic_set").rglob("*.parquet")))


def kill_once(job: Job, outcome: Outcome, draw: random.Random, usual_s: float) -> str | None:
    """Starts a job, signals a rank at a random moment, and waits; None = it had ended before."""
    before = job.summary
    by_clock, wanted = draw.random() < 0.5, progress_of(job) + draw.randint(1, STEPS)
    moment, rank, how = draw.uniform(0, usual_s), draw.randrange(RANKS), draw.choice(SIGNALS)
    more = draw.uniform(0, 0.2)
    job.start()
    outcome.counts["starts"] += 1
    began = time.monotonic()
    while rank in job.alive():
        if time.monotonic() - began > (moment if by_clock else 10 * usual_s):
            break
        if not by_clock and progress_of(job) >= wanted:
            time.sleep(more)
            break
        time.sleep(0.01)
    if rank not in job.alive():
        ends_well(job, outcome)
        return None
    os.kill(job.ranks[rank], getattr(signal, how))
    killed = time.monotonic()
    outcome.counts["kills"] += 1
    outcome.counts[how] += 1
    if not job.wait(LIMIT_S):
        outcome.note("hung", f"{job.folder.name}, start {job.starts}: rank {rank}, {how}; see {job.folder / 'log'}")
    outcome.longest_s = max(outcome.longest_s, time.monotonic() - killed)
    check_record(job, outcome, how, before)
    return how


def ends_well(job: Job, outcome: Outcome) -> None:
    """Waits for a start that nobody disturbs."""
    if not job.wait(20 * LIMIT_S):
        outcome.note("hung", f"{job.folder.name}, start {job.starts}, undisturbed; see {job.folder / 'log'}")
    check_record(job, outcome, None, {})


def kill_runs(kind: str, kills: int, folder: Path, draw: random.Random, first_job: int) -> Outcome:
    """Kills runs of one kind so many times, and brings each to its end."""
    outcome = Outcome()
    words = {"synthesis": synthesis, "fit": training}[kind](folder)

    def new_job(name: str, number: int) -> Job:
        return Job(words, folder / name, first_job + number, RANKS)

    undisturbed = new_job("undisturbed", 0)
    undisturbed.start()
    began = time.monotonic()
    ends_well(undisturbed, outcome)
    usual_s = time.monotonic() - began
    if kind == "synthesis":
        whole: Any = looked_at(lambda: faces_of(undisturbed.run))
        assert len(whole) == FACES, f"{len(whole)} faces; see {undisturbed.folder / 'log'}"
        check: Callable[..., None] = check_synthesis
    else:
        whole = {**looked_at(lambda: last_of(undisturbed.run)), "counts": undisturbed.summary["counts"]}
        assert whole["step"] == STEPS, f"step {whole['step']}; see {undisturbed.folder / 'log'}"
        check = check_training
    while outcome.counts["kills"] < kills:
        outcome.counts["runs"] += 1
        job = new_job(f"run{outcome.counts['runs']}", outcome.counts["runs"])
        for _ in range(KILLS_OF_A_RUN):
            if outcome.counts["kills"] >= kills or is_complete(job.summary):
                break
            how = kill_once(job, outcome, draw, usual_s)
            check(job, outcome, whole, is_end=False)
            print(f"# {job.folder.name}: {how}, {job.codes}, {job.summary.get('status')}", file=sys.stderr, flush=True)
        if not is_complete(job.summary):
            job.start()
            outcome.counts["starts"] += 1
            ends_well(job, outcome)
        check(job, outcome, whole, is_end=True)
    return outcome


def main() -> int:
    """Prints the line and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each kind (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="of signals, ranks and moments (default: 1)")
    parser.add_argument("--only", choices=("synthesis", "fit"), help="one kind alone")
    parser.add_argument("--folder", type=Path, help="where runs and logs are kept (default: a temporary one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SYNFER_"))]:
        del os.environ[name]
    began, found, faults = time.monotonic(), {}, 0
    with tempfile.TemporaryDirectory() as temporary:
        for number, kind in enumerate(("synthesis", "fit")):
            if options.only in (None, kind):
                folder = (options.folder or Path(temporary)) / kind
                folder.mkdir(parents=True, exist_ok=True)
                draw = random.Random(f"{options.seed} {kind}")
                outcome = kill_runs(kind, options.kills, folder, draw, 1 + 200 * number)
                said = {name: outcome.counts[name] for name in ("kills", "runs", "starts", *SIGNALS)}
                wrong = {name: outcome.counts[name] for name in ("lost", "doubled", "hung", "different", "untrue")}
                faults += sum(wrong.values())
                longest = {"longest_s": round(outcome.longest_s, 1), "remarks": outcome.remarks[:20]}
                found[kind] = {**said, **wrong, **longest}
    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps({"seed": options.seed, **found, **machine}))
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
