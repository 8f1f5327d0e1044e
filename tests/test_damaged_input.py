"""Every kind of file that the product reads, damaged in every way: one clear line, or the right values all the same."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import train
from callbacks.recording.metrics_csv import MetricsCsv
from datamodules.readers.fer2013 import FER2013Reader
from datamodules.readers.fer2013.ferplus_votes import VOTE_COLUMNS
from datamodules.readers.image_folder import ImageFolderReader
from datamodules.readers.synthetic_set import SyntheticSetReader
from datamodules.synthetic.synthetic_rows import SyntheticRows
from datamodules.synthetic.synthetic_shards import check_record, write_card, write_shard
from experiments.command_line.checkpoint_argument import check_fits, locate
from experiments.command_line.errors import one_line_errors
from experiments.compare.run_folders import read_run_folders
from experiments.sweep.sweep_error import SweepError
from experiments.sweep.sweep_file import read_sweep_file
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.voter import load_voter
from synfer.labels.label_table import LabelTable, read_label_table, write_label_table
from synfer.networks.au_estimator import ActionUnitNetwork
from synfer.networks.feature_cache import FeatureCache, image_keys
from synfer.runs.metrics_table import read_history
from tests.fixtures.damaged_files import DAMAGES
from tests.fixtures.outside_models import save_clip, save_timm
from tests.fixtures.tiny_generator import NAMES, save_checkpoint, tiny_classifier, tiny_generator

PROJECT = Path(train.__file__).parent
CONFIGS = PROJECT / "configs"
LIMIT_S = 20
PYTHON_WORDS = re.compile(
    r"Traceback|NoneType|object has no attribute|not subscriptable|KeyError|TypeError|indices must be|codec can't|"
    r"unexpected keyword|positional argument|not iterable|<class|Errno"
)

Read = Callable[[Path], Any]
"""Reads from a folder and returns something that can be compared; what a reader returns as a warning it raises."""


class Told(Exception):
    """A line that the product prints without ending."""


def weights_of(module: torch.nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().cpu().numpy().tobytes() for name, tensor in module.state_dict().items()}


def rows_of(table: Any) -> Any:
    pixels = table.images.batch(np.arange(len(table))).numpy().tobytes()
    return pixels, table.label.tolist(), table.soft_label.tolist(), table.sample_id.tolist()


# ---------------------------------------------------------------- one function that writes, one that reads, per kind


def write_fer_csv(folder: Path) -> None:
    random = np.random.default_rng(0)
    usages = ["Training", "Training", "PublicTest", "PrivateTest"]
    with (folder / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for number, usage in enumerate(usages):
            writer.writerow([number, " ".join(map(str, random.integers(0, 256, 48 * 48))), usage])
    with (folder / "fer2013new.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *VOTE_COLUMNS])
        for number, usage in enumerate(usages):
            writer.writerow([usage, f"fer{number:07d}.png", *([0] * number), 10, *([0] * (9 - number))])


def read_fer(folder: Path) -> Any:
    reader = FER2013Reader(str(folder), labels="ferplus_soft", usages={"train": "Training"})
    return rows_of(reader.read("train"))


def write_fer_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    rows = []
    for number in range(6):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (48, 48), dtype=np.uint8)).save(file, "PNG")
        rows.append({"row": number, "image": file.getvalue(), "label": number, "usage": "Training"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "fer2013.parquet", write_page_checksum=True)


def write_pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("happy", "sad"):
        (folder / "train" / name).mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / "train" / name / "1.png")


def set_rows() -> SyntheticRows:
    random = np.random.default_rng(0)
    return SyntheticRows(
        index=np.arange(4),
        sample_id=[f"s-{i}" for i in range(4)],
        image=random.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8),
        label=["happy", "sad", "happy", "sad"],
        soft_label=np.eye(3)[[1, 2, 1, 2]],
        label_space=NAMES,
        caption=["a happy face"] * 4,
        au=np.full((4, 2), 0.5),
        au_names=["AU6", "AU12"],
        seed=1,
        layout_source=[""] * 4,
        kept=np.ones(4, bool),
    )


def write_set(folder: Path) -> None:
    check_record(folder, {"generator": "0123", "seed": 1, "sampling": {"num_steps": 4}})
    write_shard(folder, set_rows())


def read_record(folder: Path) -> Any:
    check_record(folder, {"generator": "0123", "seed": 1, "sampling": {"num_steps": 4}})
    return write_card(folder), (folder / "README.md").read_text()


def write_table(folder: Path) -> None:
    soft = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] * 0.8 + 0.2 / 3
    table = LabelTable(
        np.array([f"t-{i}" for i in range(4)]), np.array(["00", "01", "02", "03"]), NAMES, np.arange(4) % 3, soft,
        {"one": soft},
    )  # fmt: skip
    write_label_table(folder / "labels.parquet", table)


def read_table(folder: Path) -> Any:
    table = read_label_table(folder / "labels.parquet")
    return table.sample_id.tolist(), table.soft_label.tolist(), table.old_label.tolist(), table.label_space


def write_run(folder: Path) -> None:
    config = {"data": {"batch_size": 8, "synthetic_ratio": 0.25}, "model": {"class_path": "A", "init_args": {"b": 1}}}
    summary = {
        "task": "fit", "status": "finished", "seed": 1, "config": config, "metrics": {"val/accuracy": 0.5},
        "best": {"val/accuracy": 0.5}, "counts": {"real": 12}, "splits": {}, "wandb_id": None,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    logger = MetricsCsv(folder)
    for step in range(4):
        logger.log_metrics({"epoch": step, "val/accuracy": 0.25 + step / 8}, step)
    logger.save()


def read_run(folder: Path) -> Any:
    runs, told = read_run_folders([folder])
    if told:
        raise Told(told[0])
    (run,) = runs
    return run.config, run.last, run.best, run.seed, run.status, run.counts


def read_settings_of_run(folder: Path) -> Any:
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "config": None}))
    return read_run(folder)


def read_metrics(folder: Path) -> Any:
    return read_history(folder / "metrics.csv", "val/accuracy")


def write_cache(folder: Path) -> None:
    cache = FeatureCache(folder, {"generator": "0123"}, 8)
    keys = image_keys(np.arange(3 * 12, dtype=np.uint8).reshape(3, 2, 2, 3))
    cache.add(keys, np.arange(24, dtype=np.float16).reshape(3, 8))
    cache.flush()


def read_cache(folder: Path) -> Any:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cache = FeatureCache(folder, {"generator": "0123"}, 8)
    if told:
        raise Told(str(told[0].message))
    return cache.rows(image_keys(np.arange(3 * 12, dtype=np.uint8).reshape(3, 2, 2, 3))).tolist()


def read_ckpt_path(folder: Path) -> Any:
    path = locate(str(folder), fit=True)
    check_fits(path, tiny_classifier())
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def write_checkpoint(folder: Path) -> None:
    (folder / "checkpoints").mkdir()
    save_checkpoint(tiny_classifier(), folder / "checkpoints" / "last.ckpt")


def write_config(folder: Path) -> None:
    (folder / "own.yaml").write_text(
        "# settings of mine\ndata:\n  batch_size: 16\n  synthetic_ratio: 0.25\nmodel:\n  init_args:\n"
        "    learning_rate: 0.05\n    label_smoothing: 0.1\ntrainer:\n  max_epochs: 3\n"
    )


def read_config(folder: Path) -> Any:
    files = [CONFIGS / "classifier" / "tiny.yaml", CONFIGS / "data" / "drawn.yaml", folder / "own.yaml"]
    parsed = train.parse(["fit", *(f"--config={file}" for file in files)])
    return parsed.data.as_dict(), parsed.model.as_dict(), parsed.trainer.max_epochs


def write_sweep(folder: Path) -> None:
    (folder / "sweep.yaml").write_text(
        "program: train.py\nmethod: grid\nname: ratios\nmetric: {name: val/accuracy, goal: maximize}\n"
        "command: ['${interpreter}', '${program}', fit, '--config=a.yaml', '${args}']\nparameters:\n"
        "  data.synthetic_ratio: {values: [0.0, 0.25]}\n  seed_everything: {values: [1, 2]}\n"
    )


def read_sweep(folder: Path) -> Any:
    sweep = read_sweep_file(folder / "sweep.yaml")
    return sweep.name, sweep.method, sweep.parameters, sweep.metric


def with_generator(folder: Path) -> None:
    tiny_generator().save_trained(folder)


def with_estimator(folder: Path) -> None:
    torch.manual_seed(0)
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    ActionUnitNetwork(["AU6", "AU12"], "vit_tiny_patch16_224", 16, small).save(folder)


def read_generator(folder: Path) -> Any:
    generator = ExpressionGenerator.load_trained(folder)
    return weights_of(generator), generator.label_space, generator.hparams["image_size"]


def read_voter(folder: Path) -> Any:
    network = load_voter(folder).network
    assert isinstance(network, torch.nn.Module)
    return weights_of(network), network.label_space


def read_judge(folder: Path) -> Any:
    classifier = ExpressionClassifier.load_trained(folder)
    return weights_of(classifier), classifier.label_space


KINDS: dict[str, tuple[Callable[[Path], Any], str, Read]] = {
    "last.ckpt of a run": (write_checkpoint, "checkpoints/last.ckpt", read_ckpt_path),
    "checkpoint of a judge": (write_checkpoint, "checkpoints/last.ckpt", read_judge),
    "generator's config.json": (with_generator, "config.json", read_generator),
    "generator's model.safetensors": (with_generator, "model.safetensors", read_generator),
    "AU estimator's config.json": (with_estimator, "config.json", lambda f: weights_of(ActionUnitNetwork.load(f))),
    "AU estimator's weights": (with_estimator, "model.safetensors", lambda f: weights_of(ActionUnitNetwork.load(f))),
    "timm voter's config.json": (lambda f: save_timm(f, ["happy", "sad"]), "config.json", read_voter),
    "CLIP voter's weights": (save_clip, "model.safetensors", read_voter),
    "label table": (write_table, "labels.parquet", read_table),
    "shard of a synthetic set": (
        write_set, "data/00000000-4.parquet", lambda f: rows_of(SyntheticSetReader(str(f)).read("train"))
    ),
    "synthesis.json": (write_set, "synthesis.json", read_record),
    "config file": (write_config, "own.yaml", read_config),
    "fer2013.csv": (write_fer_csv, "fer2013.csv", read_fer),
    "fer2013new.csv": (write_fer_csv, "fer2013new.csv", read_fer),
    "FER2013 as Parquet": (
        write_fer_parquet, "fer2013.parquet",
        lambda f: rows_of(FER2013Reader(str(f), usages={"train": "Training"}).read("train")),
    ),
    "picture in a folder": (
        write_pictures, "train/happy/1.png", lambda f: rows_of(ImageFolderReader(str(f)).read("train"))
    ),
    "sweep file": (write_sweep, "sweep.yaml", read_sweep),
    "summary.json": (write_run, "summary.json", read_run),
    "metrics.csv": (write_run, "metrics.csv", read_metrics),
    "shard of a feature cache": (write_cache, "features-*/shard-*/features.npy", read_cache),
}  # fmt: skip


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError("hang")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Read, folder: Path, names: set[str], expected: Any) -> tuple[str, str]:
    """Returns how a reading ended, and the line that was told.

    Args:
        read: what reads.
        folder: where the files are.
        names: what a clear line may call the file: its name, or that of the folder that it makes up.
        expected: what the whole file holds.
    """
    stderr = io.StringIO()
    try:
        with time_limit(LIMIT_S), contextlib.redirect_stderr(stderr), one_line_errors(exit_code=2):
            try:
                found = read(folder)
            except SweepError as error:  # sweep.py prints it as it is
                raise Told(str(error)) from None
    except Told as told:
        line = str(told)
    except SystemExit:
        line = stderr.getvalue().strip()
    except TimeoutError:
        return "hang", ""
    except BaseException as error:
        return "traceback", repr(error)[:300]
    else:
        return ("right values" if found == expected else "wrong values, unseen"), ""
    clear = "\n" not in line and not PYTHON_WORDS.search(line) and any(name in line for name in names)
    return ("clear line" if clear else "dark line"), line


def test_damaged_files_are_one_clear_line_or_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(KINDS) == 20 and len(DAMAGES) == 21
    counts: dict[str, Counter[str]] = {}
    odd: list[str] = []
    for number, (kind, (write, name, read)) in enumerate(KINDS.items()):
        counts[kind] = Counter()
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder)
        (path,) = folder.glob(name)
        whole = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        expected = read(folder)
        for damage, change in DAMAGES.items():
            for file, content in whole.items():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            path.write_bytes(change(whole[path]))
            how, line = outcome(read, folder, {path.name, str(path.parent), str(folder)}, expected)
            counts[kind][how] += 1
            if how not in ("clear line", "right values"):
                odd.append(f"{kind}, {damage}: {how}: {line[:400]}")
    total = sum(counts.values(), Counter())
    with capsys.disabled():
        print(table_of(counts, total))
        print("\n".join(odd))
    assert total.total() == 420
    assert total["traceback"] == total["hang"] == 0
    assert (total["clear line"] + total["right values"]) / total.total() >= 0.95


def table_of(counts: dict[str, Counter[str]], total: Counter[str]) -> str:
    hows = ("clear line", "right values", "dark line", "wrong values, unseen", "traceback", "hang")
    lines = [f"{'':32}" + " ".join(f"{how:>13.13}" for how in hows)]
    for kind, counted in [*counts.items(), ("all", total)]:
        lines.append(f"{kind:32}" + " ".join(f"{counted[how]:13}" for how in hows))
    return "\n" + "\n".join(lines)
