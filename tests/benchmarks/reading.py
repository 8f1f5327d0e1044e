"""Reading a folder of JPEG faces into augmented batches, beside torchvision's ImageFolder with v2 transforms.

    python tests/benchmarks/reading.py
    python tests/benchmarks/reading.py --count 256 --rounds 3      # a look
    python tests/benchmarks/reading.py --start 100000              # the cold and the warm start of so many files
    python tests/benchmarks/reading.py --memory 1000000            # of so many rows of Parquet

Both read the same files with the same batch size, number of loader processes and threads, and end with float32 batches
of one size, flipped, moved, lightened and erased at random. Rounds are taken in turn in one process; each figure is the
median over them, by the CPU time of loader processes too. Prints one JSON line: ``throughput_ratio_48`` and
``throughput_ratio_224`` (images per CPU second, ours ÷ theirs), ``cached_ratio_48`` and ``cached_ratio_224`` (the same
with ``data.decoded_cache``, which a first pass, not counted, has filled). With ``--start`` it prints ``cold_s`` and
``warm_s``, from the reader's construction to the first batch, ``scan_s``, ImageFolder's own look at the folders, and
``warm_of_cold``, each also as ``…_cpu``, which counts on a busy machine; ``--side`` is that of the files. With
``--memory`` it prints ``over_baseline_mb``, what reading and an epoch add to the memory of a process that has imported
everything (mapped files left out, for the system may take those back): after reading, and eight times in the epoch,
or in the part of it that ``--batches`` says. Rows lie in files of 10,000, copies of one another.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch

# Started as a file, Python looks for modules beside that file only.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.augmentation import Augmentation
from datamodules.readers import DrawnReader, ImageFolderReader, TableOfPicturesReader

BARS = {
    "throughput_ratio_48": 2.0,
    "throughput_ratio_224": 1.3,
    "cached_ratio_224": 4.0,
    "warm_s": 5.0,
    "warm_of_cold": 0.05,
    "over_baseline_mb": 300.0,
}
BATCH = 64
ROWS_OF_A_FILE = 10_000


def write_folder(root: Path, count: int, side: int) -> None:
    """Writes drawn faces as JPEG into folders named by expression, in training and validation."""
    from PIL import Image

    table = DrawnReader({"train": count, "val": 14, "test": 14}, image_size=side, label_space="basic7")
    for split in ("train", "val"):
        rows = table.read(split)  # type: ignore[arg-type]
        for row, (pixels, label) in enumerate(zip(rows.images.array, rows.label, strict=True)):  # type: ignore[attr-defined]
            folder = root / split / rows.label_space[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{row:06d}.jpg", quality=90)


def ours(root: Path, side: int, workers: int, cache: Path | None = None) -> Callable[[], Iterator[int]]:
    """Returns what goes through the training rows once, batch by batch, as a run does."""
    data = ExpressionDataModule(
        ImageFolderReader(str(root), "basic7", image_size=side),
        batch_size=BATCH,
        image_size=side,
        num_workers=workers,
        augmentation=Augmentation(),
        seed=0,
        decoded_cache=None if cache is None else str(cache),
    )
    data.prepare_data()
    data.setup("fit")
    # Without a trainer in training nothing is augmented.
    training = {"training": True, "sanity_checking": False, "state": SimpleNamespace(stage="train")}
    where = {"world_size": 1, "global_rank": 0, "current_epoch": 0, "global_step": 0, "limit_train_batches": 1.0}
    data.trainer = SimpleNamespace(**training, **where)  # type: ignore[assignment]

    batch = next(iter(data.train_dataloader()))
    plain = batch["image"].float() / 255
    if torch.equal(plain, data.on_after_batch_transfer(batch, 0)["image"]):
        raise RuntimeError("found faces that are not augmented, expected those of a training")

    def batches() -> Iterator[int]:
        for batch in data.train_dataloader():
            yield len(data.on_after_batch_transfer(batch, 0)["image"])

    return batches


def theirs(root: Path, side: int, workers: int) -> Callable[[], Iterator[int]]:
    """Returns the same with torchvision alone."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    change = Augmentation()
    steps = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(side, antialias=True),
            v2.CenterCrop(side),
            v2.RandomHorizontalFlip(change.flip),
            v2.RandomAffine(
                change.rotation,
                (change.translate, change.translate),
                (1 - change.scale, 1 + change.scale),
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.ColorJitter(change.brightness, change.contrast),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomErasing(change.erasing),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(root / "train"), steps), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers
    )

    def batches() -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return batches


def cached(root: Path, side: int, workers: int) -> Callable[[], Iterator[int]]:
    """Returns the same as :func:`ours` from a cache that is full."""
    batches = ours(root, side, workers, root / "cache")
    for _ in range(2):  # a batch that is not whole is left out, each time another one
        sum(batches())
    return batches


def images_per_cpu_second(batches: Callable[[], Iterator[int]]) -> float:
    """Returns the rate of one pass, by the CPU time of this process and of its loader processes."""
    before = cpu_seconds()
    count = sum(batches())
    return count / (cpu_seconds() - before)


def cpu_seconds() -> float:
    """Returns what this process and those that it has waited for have spent, in microseconds' steps."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def start(root: Path, count: int, side: int) -> dict[str, float]:
    """Returns the seconds of a cold and of a warm start, the latter the median of three."""
    from torchvision.datasets import ImageFolder

    write_folder(root / "few", 700, side)
    sources = [(file.parent.name, file.read_bytes()) for file in sorted((root / "few" / "train").rglob("*.jpg"))]
    for number in range(count):  # the same pictures many times: other names are other files to everybody
        expression, data = sources[number % len(sources)]
        place = root / "many" / "train" / expression / f"{number:07d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    shutil.copytree(root / "few" / "val", root / "many" / "val")
    os.environ["SYNFER_INDEX_DIR"] = str(root / "index")
    next(ours(root / "few", side, 0)())  # what is imported when first needed counts to neither start
    time.sleep(2.5)  # files that were just written are not trusted
    works: list[tuple[str, Callable[[], object]]] = [
        ("cold", lambda: next(ours(root / "many", side, 0)())),
        *[("warm", lambda: next(ours(root / "many", side, 0)()))] * 3,
        *[("scan", lambda: ImageFolder(str(root / "many" / "train")))] * 3,
    ]
    spent: dict[str, list[float]] = {}
    for name, work in works:
        began, cpu_began = time.perf_counter(), cpu_seconds()
        work()
        spent.setdefault(f"{name}_s", []).append(time.perf_counter() - began)
        spent.setdefault(f"{name}_cpu_s", []).append(cpu_seconds() - cpu_began)
    told = {name: statistics.median(values) for name, values in spent.items()}
    ratios = {f"warm_of_cold{kind}": told[f"warm{kind}_s"] / told[f"cold{kind}_s"] for kind in ("", "_cpu")}
    return told | ratios


def write_tables(root: Path, count: int) -> None:
    """Writes rows as Parquet files, and reads the first of them, so that its pictures are in the index.

    The other files are copies of it with other names, and so are their indexes: what would be found in them is known,
    and a million pictures need not be decoded for it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_folder(root / "few", 700, 48)
    files = sorted((root / "few" / "train").rglob("*.jpg"))
    pictures, labels = [file.read_bytes() for file in files], [file.parent.name for file in files]
    (root / "set").mkdir()
    rows, parts = min(count, ROWS_OF_A_FILE), max(1, count // ROWS_OF_A_FILE)
    for name, wanted in (("train-00000", rows), ("val", 70)):
        with pq.ParquetWriter(
            str(root / "set" / f"{name}.parquet"), pa.schema({"image": pa.binary(), "label": pa.string()})
        ) as writer:
            for start in range(0, wanted, len(files)):
                some = slice(0, min(len(files), wanted - start))
                writer.write_table(pa.table({"image": pa.array(pictures[some], pa.binary()), "label": labels[some]}))
    time.sleep(2.5)  # files that were just written are not trusted
    first = root / "set" / "train-00000.parquet"
    TableOfPicturesReader(str(root / "set")).read("train")
    indexes = list((root / "index").glob("*.table.parquet"))
    for number in range(1, parts):
        other = first.with_name(f"train-{number:05d}.parquet")
        shutil.copy2(first, other)
        for index in indexes:
            name = hashlib.sha256(f"{other.absolute()}\0image".encode()).hexdigest()[:16]
            shutil.copyfile(index, index.with_name(f"{name}.table.parquet"))


def memory(root: Path, count: int, batches: int | None) -> dict[str, object]:
    """Returns what rows of Parquet add to the memory of this process, in 10⁶ bytes."""
    os.environ["SYNFER_INDEX_DIR"] = str(root / "index")
    writing = multiprocessing.get_context("fork").Process(target=write_tables, args=(root, count))
    writing.start()  # in a process of its own, whose memory is no part of what is measured
    writing.join()
    if writing.exitcode:
        raise RuntimeError(f"found exit code {writing.exitcode} of the process that writes the files, expected 0")
    before = own_memory()
    began = cpu_seconds()
    data = ExpressionDataModule(
        TableOfPicturesReader(str(root / "set")), batch_size=BATCH, image_size=48, augmentation=Augmentation(), seed=0
    )
    data.setup("fit")
    measured, read = [own_memory()], cpu_seconds() - began
    wanted = min(batches or count, data.num_real_rows // BATCH)
    for number, _ in zip(range(1, wanted + 1), data.train_dataloader(), strict=False):
        if number % max(1, wanted // 8) == 0:
            measured.append(own_memory())
    over = [round((value - before) / 1e6, 1) for value in measured]
    return {
        "rows": data.num_real_rows,
        "read_cpu_s": round(read, 1),
        "batches": wanted,
        "over_baseline_mb": over,
        "baseline_mb": round(before / 1e6),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
    }


def own_memory() -> int:
    """Returns the bytes of this process's own memory, without mapped files."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(found) * 1024


def main() -> None:
    """Measures and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2048, help="training faces of each folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument("--start", type=int, metavar="FILES", help="measure starts instead, with so many files")
    parser.add_argument("--side", type=int, default=48, help="of the files of --start, in pixels")
    parser.add_argument("--memory", type=int, metavar="ROWS", help="measure memory instead, with so many rows")
    parser.add_argument("--batches", type=int, help="of the epoch of --memory; default: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, object] = {"benchmark": "reading"}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        if args.start:
            told = start(root, args.start, args.side)
            result |= {"side": args.side, **{name: round(value, 3) for name, value in told.items()}}
        elif args.memory:
            result |= memory(root, args.memory, args.batches)
        else:
            for side in (48, 224):
                write_folder(root / str(side), args.count, side)
                loaders = {"ours": ours, "cached": cached, "theirs": theirs}
                made = {name: make(root / str(side), side, args.workers) for name, make in loaders.items()}
                rates: dict[str, list[float]] = {name: [] for name in made}
                for _ in range(args.rounds):
                    for name, batches in made.items():
                        rates[name].append(images_per_cpu_second(batches))
                for name, key in (("ours", "throughput"), ("cached", "cached")):
                    pairs = zip(rates[name], rates["theirs"], strict=True)
                    result[f"{key}_ratio_{side}"] = round(statistics.median(a / b for a, b in pairs), 3)
                result |= {f"{name}_{side}_per_cpu_s": round(statistics.median(r)) for name, r in rates.items()}
    print(json.dumps({**result, "workers": args.workers, "bars": BARS}))


if __name__ == "__main__":
    main()
