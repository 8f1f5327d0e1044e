"""What a set of a million faces costs beside the faces: start, memory, scan at a restart, files, and writing.

    python tests/benchmarks/million_faces.py
    python tests/benchmarks/million_faces.py --faces 100000 --small 10000 --made 2048   # a tenth, in minutes

``predict`` is the real one (Trainer, ExpressionDataModule, SyntheticSetWriter) with the synthesiser of the tests, which
draws faces. Every measurement is a process of its own. Of a planned set of ``--small`` and of ``--faces`` faces the
same ``--made`` are drawn and written, once with nothing there and once with all others there: those are written before
by what ``predict`` writes with (``ShardStream``, ``table_of``), the pictures of 256 drawn faces over and over, each row
with its own id, for drawing a million takes hours and tells nothing about the set.

Writing is measured at ``--side`` pixels, until the last face is in a shard and the shard in the manifest: segments of
bare synthesis and of ``predict`` alternate in one process, and the median of the ratios of neighbours counts. On the
wall it is what writing adds where a second core is free; ``main_thread_over_bare``, in CPU seconds of the thread that
makes the faces, is the same on a machine that others use; ``cpu_over_bare`` is what one core alone would have to do.

Prints one JSON line. Memory is resident, its peak (VmHWM) in MB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import platform
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lightning.pytorch import Callback, Trainer

from callbacks.synthesis.synthetic_set_writer import SyntheticSetWriter, rows_of
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.synthetic.shard_stream import ShardStream
from datamodules.synthetic.synthetic_manifest import read_manifest, shard_paths
from datamodules.synthetic.synthetic_rows import table_of, with_features
from datamodules.synthetic.synthetic_shards import begin_set
from synfer.synthesis.conditions import sample_name
from synfer.synthesis.plan import EvenPlan
from tests.fixtures.drawn_synthesiser import DrawnModule
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table

SEED = 5


class Stopwatch(Callback):
    """Notes when the first face was there, and when the last one."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def on_predict_batch_end(self, *args: Any) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last


class TimedWriter(SyntheticSetWriter):
    """Notes when the last face was in a shard, before the set is looked over: seconds, CPU seconds, main thread's."""

    flushed: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def _flush(self) -> None:
        super()._flush()
        self.flushed = clocks()


def clocks() -> tuple[float, float, float]:
    """Returns seconds on the wall, CPU seconds of all threads, and of this one."""
    return time.perf_counter(), cpu_seconds(), time.thread_time()


def predict(folder: Path, faces: int, side: int, batch: int, made: int, plan: str = "even") -> dict[str, Any]:
    """Makes at most so many faces of a set of so many; returns seconds and memory."""
    tables = {split: tiny_table(28, split, side) for split in ("train", "val", "test")}
    data = ExpressionDataModule(
        TinyReader(**tables), eval_batch_size=batch, synthesis_count=faces, synthesis_plan=plan, seed=SEED
    )
    watch, module, writer = Stopwatch(), DrawnModule(BASIC7, side), TimedWriter(str(folder))
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder.parent,
        limit_predict_batches=-(-made // batch),
        callbacks=[writer, watch],
    )
    before, begun = memory(), clocks()
    started = begun[0]
    with contextlib.suppress(ValueError):  # those that are missing; the rest of the set is looked at all the same
        trainer.predict(module, data, return_predictions=False)
    ended = time.perf_counter()
    return {
        "start_s": watch.first - started,
        "faces_s": watch.last - started,
        "end_s": ended - watch.last,
        "wall_s": ended - started,
        "cpu_s": cpu_seconds() - begun[1],
        "written": [end - begin for end, begin in zip(writer.flushed, begun, strict=True)],
        "before_mb": before,
        "peak_mb": memory(),
    }


def fill(folder: Path, faces: int, side: int, batch: int, left_out: int, plan: str) -> dict[str, float]:
    """Writes the first faces of a set as ``predict`` does, with the pictures of a few."""
    predict(folder, faces, side, 1, 1, plan)  # it begins the set, with the record that the restart compares
    for shard in shard_paths(folder):
        shard.unlink()
    begin_set(folder, faces)
    started = time.perf_counter()
    module = DrawnModule(BASIC7, side)
    drawn = table_of(rows_of(module.synthesise(EvenPlan(faces, BASIC7, SEED).request(range(252)))))
    stream = ShardStream(folder)
    for first in range(0, faces - left_out, len(drawn)):
        index = np.arange(first, min(first + len(drawn), faces - left_out))
        table = drawn.slice(0, len(index))
        for name, values in (
            ("index", pa.array(index)),
            ("sample_id", pa.array([sample_name(SEED, i) for i in index.tolist()])),
        ):
            table = table.set_column(table.column_names.index(name), name, values)
        stream.add(with_features(table, BASIC7))
    stream.flush()
    begin_set(folder, faces)
    return {"wall_s": time.perf_counter() - started, "peak_mb": memory()}


def writing(side: int, batch: int, faces: int, pairs: int) -> dict[str, float]:
    """Returns what ``predict`` costs on top of bare synthesis: medians over pairs."""
    module, plan = DrawnModule(BASIC7, side), EvenPlan(faces, BASIC7, SEED)
    ratios: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        predict(Path(folder) / "warm" / "set", batch, side, batch, batch)
        for number in range(pairs):
            begun = clocks()
            for first in range(0, faces, batch):
                module.synthesise(plan.request(range(first, min(first + batch, faces))))
            bare = [end - begin for end, begin in zip(clocks(), begun, strict=True)]
            written = predict(Path(folder) / str(number) / "set", faces, side, batch, faces)["written"]
            ratios.append([with_it / without - 1 for with_it, without in zip(written, bare, strict=True)])
    names = ("wall_over_bare", "cpu_over_bare", "main_thread_over_bare")
    found = {name: statistics.median(values) for name, values in zip(names, zip(*ratios, strict=True), strict=True)}
    return {**found, "least_wall_over_bare": min(wall for wall, *_ in ratios), "bare_faces_per_s": faces / bare[0]}


def memory() -> float:
    """Returns the largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def apart(work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Runs one measurement in a process of its own, which begins with all packages imported and nothing else."""
    forked = multiprocessing.get_context("fork")
    receiver, sender = forked.Pipe(duplex=False)
    process = forked.Process(target=lambda: sender.send(work(*args)))
    process.start()
    sender.close()
    try:
        found: dict[str, Any] = receiver.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__}{args}: it has failed, see above") from None
    process.join()
    print(work.__name__, *args[1:], json.dumps(found), file=sys.stderr, flush=True)
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns all figures."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        for name, faces in (("small", options.small), ("large", options.faces)):
            folder = Path(root) / name / "set"
            shape = (faces, options.size, options.batch_size, options.made, options.plan)
            new = apart(predict, folder, *shape)
            other = Path(root) / f"{name}-filled" / "set"
            filled = apart(fill, other, *shape)
            again = apart(predict, other, *shape)
            started = time.perf_counter()
            shards, manifest = shard_paths(other), read_manifest(other)
            assert manifest is not None and manifest.faces == faces, "the restart has not made what was missing"
            listing = time.perf_counter() - started
            size = sum(path.stat().st_size for path in shards)
            largest = max(entry.faces for entry in manifest.shards.values())
            found[name] = {
                "faces": faces,
                "new": new,
                "filled": filled,
                "restart": again,
                "list_s": listing,
                "shards": len(shards),
                "largest_shard": largest,
                "set_mb": size / 2**20,
            }
        if options.pairs:
            found["writing"] = apart(writing, options.side, options.batch_size, options.segment, options.pairs)
    small, large = found["small"], found["large"]
    return {
        "start_s": large["new"]["start_s"],
        "restart_s": large["restart"]["start_s"],
        "growth_mb": max(large[k]["peak_mb"] - small[k]["peak_mb"] for k in ("new", "restart")),
        "growth_new_mb": large["new"]["peak_mb"] - small["new"]["peak_mb"],
        "growth_restart_mb": large["restart"]["peak_mb"] - small["restart"]["peak_mb"],
        **found,
    }


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=1_000_000, help="of the large set")
    parser.add_argument("--small", type=int, default=10_000, help="of the small set")
    parser.add_argument("--made", type=int, default=4096, help="faces that each predict draws")
    parser.add_argument("--size", type=int, default=32, help="pixels a side of the sets' faces, ≥ 32")
    parser.add_argument("--side", type=int, default=64, help="pixels a side where writing is measured")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=3, help="of segments with and without writing; 0 = none")
    parser.add_argument("--segment", type=int, default=4096, help="faces of such a segment")
    parser.add_argument("--plan", default="even", help="even, or real: shares of the training rows")
    parser.add_argument("--folder", type=Path, default=None, help="where the sets lie for a while; 3 GB of a million")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(json.dumps({"benchmark": "million_faces", "machine": platform.machine(), **measure(options)}))


if __name__ == "__main__":
    main()
