"""Faces made ahead: every face once, the same whatever the batches, readable, and never of two kinds in one set."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import train
from callbacks.synthesis.synthetic_set_writer import SyntheticSetWriter
from datamodules.readers import SyntheticSetReader
from datamodules.synthetic.synthetic_manifest import missing_shards, read_manifest
from datamodules.synthetic.synthetic_shards import finished_indices, read_record, read_shard
from lightning_modules.generator import ExpressionGenerator
from synfer.faces.expressions import LABEL_SPACES
from synfer.foundation.folder_lock import RanksLock
from synfer.synthesis.request import SamplingSettings
from tests.fixtures.processes import ended, run_to_end
from tests.fixtures.tiny_generator import (
    save_checkpoint,
    scaled_weights,
    tiny_classifier,
    tiny_generator,
    tiny_settings,
)

PROJECT = Path(train.__file__).parent
SIDE = 32  # the smallest drawn faces
BASIC7 = LABEL_SPACES["basic7"]
VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    made: dict[str, Any] = {
        "label_space": "basic7",
        "image_size": SIDE,
        "sampling": SamplingSettings(num_steps=2, guidance_scale=2.0),
    }
    save_checkpoint(scaled_weights(tiny_generator(**made)), folder / "generator.ckpt")
    save_checkpoint(tiny_classifier(BASIC7, 1, image_size=SIDE, backbone_kwargs=VIT), folder / "one.ckpt")
    save_checkpoint(tiny_classifier(BASIC7, 2, image_size=SIDE, backbone_kwargs=VIT), folder / "two.ckpt")
    return folder


def arguments(weights: Path, run_dir: Path, *more: str, count: int = 10, batch: int = 4) -> list[str]:
    """The command line; the tiny generator's shape comes from the file it is written to."""
    model = run_dir.parent / "model.yaml"
    if not model.is_file():
        model.parent.mkdir(parents=True, exist_ok=True)
        found = {"class_path": "lightning_modules.generator.ExpressionGenerator", "init_args": tiny_settings(SIDE)}
        model.write_text(yaml.safe_dump({"model": found}))
    return [
        "predict",
        f"--config={PROJECT / 'configs/data/drawn.yaml'}",
        "--data.reader.init_args.count={train: 14, val: 7, test: 7}",
        f"--data.reader.init_args.image_size={SIDE}",
        f"--config={model}",
        f"--config={PROJECT / 'configs/synthesise/plain.yaml'}",
        f"--ckpt_path={weights / 'generator.ckpt'}",
        f"--data.synthesis_count={count}",
        f"--data.eval_batch_size={batch}",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        f"--run_dir={run_dir}",
        *more,
    ]


def images(folder: Path) -> dict[str, bytes]:
    rows = [row for shard in sorted(folder.glob("data/*.parquet")) for row in pq.read_table(shard).to_pylist()]
    return {row["sample_id"]: row["image"]["bytes"] for row in rows}


def test_a_folder_of_trained_weights_makes_the_set_of_its_checkpoint(weights: Path, tmp_path: Path) -> None:
    generator = ExpressionGenerator.load_trained(weights / "generator.ckpt")
    generator._remember("teacher")
    generator.save_trained(tmp_path / "trained")
    made = {}
    for name, given in (("checkpoint", weights / "generator.ckpt"), ("folder", tmp_path / "trained")):
        train.main([*arguments(weights, tmp_path / name), f"--ckpt_path={given}"])
        made[name] = images(tmp_path / name / "synthetic_set")
        record = read_record(tmp_path / name / "synthetic_set")
        assert record.get("taught_by") == (["teacher"] if name == "folder" else None)  # who must not judge it
    assert made["folder"].keys() == made["checkpoint"].keys() and len(made["folder"]) == 10
    pixels = {
        name: np.stack([np.asarray(Image.open(BytesIO(found[key]))).astype(int) for key in sorted(found)])
        for name, found in made.items()
    }
    assert np.abs(pixels["folder"] - pixels["checkpoint"]).mean() < 1  # rounded to float16
    assert pixels["folder"].std() > 5


def test_a_fit_does_not_go_on_from_weights_alone(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ExpressionGenerator.load_trained(weights / "generator.ckpt").save_trained(tmp_path / "trained")
    command = arguments(weights, tmp_path / "run")
    command[0] = "fit"
    with pytest.raises(SystemExit) as stopped:
        train.main([*command, f"--ckpt_path={tmp_path / 'trained'}"])
    line = capsys.readouterr().err
    assert stopped.value.code == 2 and "is a folder of save_trained, weights alone; expected a checkpoint to go" in line
    assert not (tmp_path / "run").exists()


def test_a_generator_of_more_expressions_makes_a_set_for_the_data(weights: Path, tmp_path: Path) -> None:
    """Trained for eight expressions in another order, used for seven: the set has the names of the data."""
    wider = tiny_generator(
        label_space="ferplus8", image_size=SIDE, sampling=SamplingSettings(num_steps=2, guidance_scale=2.0)
    )
    wider.save_trained(tmp_path / "wider")
    train.main(
        [*arguments(weights, tmp_path / "run"), f"--ckpt_path={tmp_path / 'wider'}", "--model.label_space=ferplus8"]
    )
    table = SyntheticSetReader(str(tmp_path / "run" / "synthetic_set"), label_space="basic7").read("train")
    assert table.label_space == BASIC7
    assert [table.label_space[k] for k in table.label] == [*BASIC7, *BASIC7[:3]]
    assert np.array_equal(table.soft_label.argmax(1), table.label)
    (shard, *_) = sorted((tmp_path / "run" / "synthetic_set").glob("data/*.parquet"))
    assert "contempt" not in shard.read_bytes().decode("latin-1")


def test_a_set_is_written_read_and_trained_on(weights: Path, tmp_path: Path, tiny_run: list[str]) -> None:
    cli = train.main(arguments(weights, tmp_path / "run"))
    folder = tmp_path / "run" / "synthetic_set"
    table = SyntheticSetReader(str(folder), label_space="basic7").read("train")
    assert len(table.label) == 10 and table.is_synthetic
    assert [table.label_space[k] for k in table.label] == [*BASIC7, *BASIC7[:3]]
    assert table.sample_id.tolist() == [f"syn-1-{i:06d}" for i in range(10)]
    assert isinstance(cli.model, ExpressionGenerator)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["counts"]["generated"] == 10 and summary["counts"]["discarded"] == 0
    card = (folder / "README.md").read_text()
    assert "10 synthetic faces; 10 of them were kept" in card and "| happy | 2 | 2 |" in card
    assert cli.model.weights_fingerprint() in card
    assert (tmp_path / "run" / "samples" / "synthetic_set.png").is_file()
    reader = ["--data.synthetic_reader=datamodules.readers.SyntheticSetReader"]
    reader += [
        f"--data.synthetic_reader.init_args.root={folder}",
        "--data.synthetic_reader.init_args.label_space=basic7",
    ]
    trained = train.main(["fit", *tiny_run, *reader, "--data.synthetic_ratio=0.5", f"--run_dir={tmp_path / 'fit'}"])
    assert trained.datamodule.counts["synthetic"] > 0


def test_a_face_is_that_of_its_number_alone(weights: Path, tmp_path: Path) -> None:
    train.main(arguments(weights, tmp_path / "one"))
    train.main(arguments(weights, tmp_path / "two", count=5, batch=3))
    one, two = images(tmp_path / "one" / "synthetic_set"), images(tmp_path / "two" / "synthetic_set")
    assert len(set(one.values())) == 10
    assert two == {name: one[name] for name in two} and len(two) == 5


def test_a_broken_set_goes_on_where_it_stopped(weights: Path, tmp_path: Path, capsys: Any) -> None:
    train.main(arguments(weights, tmp_path / "whole"))
    whole = images(tmp_path / "whole" / "synthetic_set")
    with pytest.raises(SystemExit):
        train.main(arguments(weights, tmp_path / "run", "--trainer.limit_predict_batches=1"))
    assert "found 4 faces, face 4 and 5 more are missing, expected 10" in capsys.readouterr().err
    folder = tmp_path / "run" / "synthetic_set"
    (folder / "data" / ".00000004-4.parquet.partial").write_bytes(b"half a shard")  # killed while writing
    first = (folder / "data" / "00000000-4.parquet").stat().st_mtime_ns
    cli = train.main(arguments(weights, tmp_path / "run", batch=5))
    assert images(folder) == whole
    assert (folder / "data" / "00000000-4.parquet").stat().st_mtime_ns == first
    assert cli.trainer.callbacks is not None
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["counts"]["generated"] == 6
    train.main(arguments(weights, tmp_path / "run", count=12))  # and a finished one grows
    assert finished_indices(folder).tolist() == list(range(12))
    grown = images(folder)
    train.main(arguments(weights, tmp_path / "run", count=12))  # nothing is left to do
    assert images(folder) == grown


def test_a_set_that_fills_the_classes_up(weights: Path, tmp_path: Path, capsys: Any) -> None:
    rows = "--data.reader.init_args.count={train: 19, val: 7, test: 7}"
    planned = [rows, "--data.synthesis_plan=fill", "--data.synthesis_count=null"]
    train.main(arguments(weights, tmp_path / "run", *planned))
    folder = tmp_path / "run" / "synthetic_set"
    labels = [row["label"] for shard in folder.glob("data/*") for row in read_shard(shard, ["label"]).to_pylist()]
    record = json.loads((folder / "synthesis.json").read_text())
    assert record["plan"]["name"] == "fill"
    shares = {name: share for name, share in record["plan"]["shares"].items() if share}
    assert Counter(labels) == {name: round(share * len(labels)) for name, share in shares.items()}
    assert len(labels) == 2 and set(shares.values()) == {0.5}  # five classes of three rows, two of two
    first = images(folder)
    train.main(arguments(weights, tmp_path / "run", *planned[:2], count=5))  # a finished one grows
    assert len(images(folder)) == 5 and first.items() < images(folder).items()
    for other, said in (([], "plan {'name': 'fill', "), ([*planned[:2], "--seed_everything=1", *MORE], "plan {'name'")):
        with pytest.raises(SystemExit):
            train.main(arguments(weights, tmp_path / "run", *other, count=6))
        assert f"its faces were made with {said}" in capsys.readouterr().err
    assert len(images(folder)) == 5


MORE = ["--data.reader.init_args.count={train: 20, val: 7, test: 7}"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed_everything=2"], "its faces were made with seed 1, found 2"),
        (["--model.sampling.num_steps=3"], "its faces were made with sampling {"),
        (["--data.synthesis_expressions=[happy]"], "its faces were made with expressions ["),
        (["--layout.enabled=true", "--layout.num_inverted=1"], "its faces were made with LayoutInitialisation None"),
    ],
)
def test_two_kinds_in_one_set(more: list[str], message: str, weights: Path, tmp_path: Path, capsys: Any) -> None:
    train.main(arguments(weights, tmp_path / "run", count=2))
    before = images(tmp_path / "run" / "synthetic_set")
    with pytest.raises(SystemExit):
        train.main(arguments(weights, tmp_path / "run", *more, count=6))
    assert message in capsys.readouterr().err
    assert images(tmp_path / "run" / "synthetic_set") == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.predict_split=val"], "data.predict_split=val, expected a model that makes faces, and synthesis"),
        (["--ckpt_path=null"], "found no --ckpt_path, expected the checkpoint of a trained ExpressionGenerator"),
        (["--data.synthesis_expressions=[contempt]"], "data.synthesis_expressions: found 'contempt'"),
        (["--data.synthesis_expressions=[bored]"], "unknown expression 'bored'"),
    ],
)
def test_what_makes_no_set(more: list[str], message: str, weights: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        train.main(arguments(weights, tmp_path / "run", *more))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "synthetic_set").exists()


def test_a_damaged_shard_is_named(weights: Path, tmp_path: Path, capsys: Any) -> None:
    train.main(arguments(weights, tmp_path / "run", count=4))
    shard = tmp_path / "run" / "synthetic_set" / "data" / "00000000-4.parquet"
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(SystemExit):
        train.main(arguments(weights, tmp_path / "run"))
    error = capsys.readouterr().err
    assert "00000000-4.parquet' cannot be read" in error and "its faces are made again" in error


def test_layout_guidance_and_votes_are_on_record(weights: Path, tmp_path: Path) -> None:
    full = [
        "--layout.enabled=true",
        "--layout.num_inverted=1",
        "--guidance.enabled=true",
        f"--guidance.guide={weights / 'one.ckpt'}",
        "--guidance.start_step=0",
        "--trainer.inference_mode=false",
        "--pseudo_labels.enabled=true",
        f"--pseudo_labels.voters=[{weights / 'one.ckpt'},{weights / 'two.ckpt'}]",
        "--pseudo_labels.adaptive_quantile=0.5",
        "--data.synthesis_expressions=[anger, happy]",
    ]
    train.main(arguments(weights, tmp_path / "run", *full, count=12))
    folder = tmp_path / "run" / "synthetic_set"
    columns = ["label", "layout_source", "votes", "kept"]
    shards = sorted(folder.glob("data/*.parquet"))
    rows = [row for shard in shards for row in read_shard(shard, columns).to_pylist()]
    assert [row["label"] for row in rows] == ["anger", "happy"] * 6
    assert all(row["layout_source"].startswith("drawn-1-train-") for row in rows)
    assert {vote["voter"] for vote in rows[0]["votes"]} == {str(weights / "one.ckpt"), str(weights / "two.ckpt")}
    mean = np.mean([[vote["probabilities"][name] for name in BASIC7] for vote in rows[0]["votes"]], axis=0)
    assert mean.sum() == pytest.approx(1, abs=1e-5)
    kept = sum(row["kept"] for row in rows)
    assert 0 < kept < 12
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["counts"]["discarded"] == 12 - kept
    assert len(SyntheticSetReader(str(folder), label_space="basic7").read("train").label) == kept
    record = json.loads((folder / "synthesis.json").read_text())
    assert record["SemanticGuidance"]["guide"] == record["PseudoLabeller"]["voters"][0]
    assert record["LayoutInitialisation"] == {"num_inverted": 1, "refinements": 0, "source": "any"}


def test_a_set_is_guided_with_temperatures_that_it_fits_and_goes_on_with(
    weights: Path, tmp_path: Path, capsys: Any
) -> None:
    table = tmp_path / "guide.json"
    guided = [
        "--guidance.enabled=true",
        f"--guidance.guide={weights / 'one.ckpt'}",
        f"--guidance.calibration={table}",
        "--guidance.entropy_weight=0.2",
        "--guidance.through=latents",
        "--guidance.start_step=0",
        "--trainer.inference_mode=false",
    ]
    train.main(arguments(weights, tmp_path / "run", *guided, count=4))
    written = json.loads(table.read_text())
    assert written["faces"] == 14 and len(written["levels"]) == 2
    record = json.loads((tmp_path / "run" / "synthetic_set" / "synthesis.json").read_text())
    assert record["SemanticGuidance"]["calibration"] == written["rows"]
    train.main(arguments(weights, tmp_path / "run", *guided, count=6))
    assert len(images(tmp_path / "run" / "synthetic_set")) == 6

    table.write_text(json.dumps({**written, "generator": "0" * 16}))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train.main(arguments(weights, tmp_path / "other", *guided, count=4))
    error = capsys.readouterr().err
    assert f"guidance.calibration '{table}': found the temperatures of another generator" in error
    assert not (tmp_path / "other" / "synthetic_set" / "synthesis.json").exists()


def test_a_set_goes_on_with_rounded_weights(weights: Path, tmp_path: Path) -> None:
    half = "--model.execution.bf16_sampling=true"
    rounded = [half, "--model.execution.bf16_weights=true"]
    train.main(arguments(weights, tmp_path / "run", half, count=4))
    begun = images(tmp_path / "run" / "synthetic_set")
    train.main(arguments(weights, tmp_path / "run", *rounded, count=6))
    train.main(arguments(weights, tmp_path / "rounded", *rounded, count=6))
    whole = images(tmp_path / "rounded" / "synthetic_set")
    assert images(tmp_path / "run" / "synthetic_set") == whole and begun.items() <= whole.items()


def test_fewer_faces_left_than_ranks(tmp_path: Path) -> None:
    datamodule = SimpleNamespace(predict_split="synthesis", synthesis_count=3, synthesis_done=None)
    trainer: Any = SimpleNamespace(world_size=4, datamodule=datamodule, default_root_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"found 3 faces left to make for 4 ranks"):
        SyntheticSetWriter().setup(trainer, tiny_generator(), "predict")
    assert not list(tmp_path.iterdir())  # a refusal leaves nothing
    datamodule.synthesis_count = 4
    SyntheticSetWriter().setup(trainer, tiny_generator(), "predict")
    assert len(datamodule.synthesis_done) == 0


def test_one_predict_at_a_time(weights: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RanksLock.take, "__defaults__", (0.1,))  # seconds of patience
    folder = tmp_path / "set"
    path = f"--trainer.callbacks.path={folder}"
    for hold in (RanksLock(folder / ".lock").take, RanksLock(folder / ".lock").join):
        hold()
        with pytest.raises(SystemExit) as ended:
            train.main(arguments(weights, tmp_path / "run", path, count=2))
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert ended.value.code == 1 and len(errors) == 1 and not list(folder.rglob("*.parquet"))
        assert f"found another predict at work on it ({'' if hold.__name__ == 'take' else 'a rank that'}" in errors[0]
        hold.__self__.release()  # type: ignore[attr-defined]
    train.main(arguments(weights, tmp_path / "run", path, count=2))
    assert finished_indices(folder).tolist() == [0, 1]


def rank_of(launcher: int) -> int:
    """Returns the process that a running predict has started as rank 1."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            environment = (entry.parent / "environ").read_bytes().split(b"\0")
            if int(fields[1]) == launcher and b"LOCAL_RANK=1" in environment:
                return int(entry.parent.name)
    raise AssertionError("rank 1 is not running")


def orphan_a_rank(weights: Path, root: Path, capsys: Any) -> Path:
    """Kills rank 0 of two, watches the other keep a restart out and end; returns the folder of the set they leave."""
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.callbacks.shard_seconds=0"]
    command = [sys.executable, str(PROJECT / "train.py"), *arguments(weights, root, *ranks, count=200)]
    folder = root / "synthetic_set"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True)
    while len(list(folder.glob("data/*.parquet"))) < 8:
        assert running.poll() is None, running.communicate()[1][-3000:]
        time.sleep(0.02)
    orphan = rank_of(running.pid)
    os.kill(orphan, signal.SIGSTOP)  # alive, and for as long as we need it
    running.kill()
    with pytest.raises(SystemExit):
        train.main(arguments(weights, root, count=200, batch=7))
    os.kill(orphan, signal.SIGCONT)
    assert "a rank that outlived its run" in capsys.readouterr().err
    # The orphan holds the other end of the pipe: this returns when it has ended.
    assert f"the process {running.pid} that started it has died" in ended(running)[1]
    return folder


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_an_orphaned_rank_ends_and_keeps_a_restart_out_until_then(weights: Path, tmp_path: Path, capsys: Any) -> None:
    # A rank may end between listing a shard and writing it, and such a set is refused in other words: another try then.
    for attempt in range(6):
        folder = orphan_a_rank(weights, tmp_path / f"two{attempt}", capsys)
        manifest = read_manifest(folder)
        assert manifest is not None
        if not missing_shards(folder, manifest):
            break
    found = set(finished_indices(folder).tolist())
    assert 0 < len(found) < 200
    with pytest.raises(ValueError, match=rf"found {len(found)} of the 200 faces planned \(it is unfinished\)"):
        SyntheticSetReader(str(folder))
    train.main(arguments(weights, folder.parent, count=200, batch=7))
    assert len(SyntheticSetReader(str(folder)).read("train").label) == 200  # which refuses doubled ones


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_make_the_same_set_as_one(weights: Path, tmp_path: Path) -> None:
    # Two expressions in turn on two ranks: the first shard holds one of them alone.
    names = "--data.synthesis_expressions=[happy,sad]"
    train.main(arguments(weights, tmp_path / "one", names, count=20))
    more = [names, "--trainer.devices=2", "--trainer.strategy=ddp"]
    done = run_to_end(
        [sys.executable, str(PROJECT / "train.py"), *arguments(weights, tmp_path / "two", *more, count=20, batch=8)],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert images(tmp_path / "two" / "synthetic_set") == images(tmp_path / "one" / "synthetic_set")
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["counts"]["generated"] == 20
    grids = [Image.open(tmp_path / folder / "samples" / "synthetic_set.png").size for folder in ("one", "two")]
    assert grids[0] == grids[1]


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_that_share_kept_layouts_and_guide_the_latents_make_the_set_of_one(
    weights: Path, tmp_path: Path
) -> None:
    steered = [
        "--layout.enabled=true",
        "--layout.num_inverted=2",
        "--model.sampling.num_steps=3",
        "--guidance.enabled=true",
        f"--guidance.guide={weights / 'one.ckpt'}",
        "--guidance.through=latents",
        "--guidance.start_step=0",
        "--trainer.inference_mode=false",
    ]
    train.main(arguments(weights, tmp_path / "one", *steered, count=20))
    more = ["--trainer.devices=2", "--trainer.strategy=ddp", f"--layout.cache_dir={tmp_path / 'layouts'}"]
    more.append("--layout.cache_ahead=true")
    done = run_to_end(
        [sys.executable, str(PROJECT / "train.py"), *arguments(weights, tmp_path / "two", *steered, *more, count=20)],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (images(tmp_path / name / "synthetic_set") for name in ("one", "two"))
    assert one.keys() == two.keys() and len(one) == 20
    for name, content in one.items():
        first, second = (np.asarray(Image.open(BytesIO(png))).astype(int) for png in (content, two[name]))
        assert np.abs(first - second).max() <= 3  # float16's rounding, through three steps
    kept = {path.name for path in (tmp_path / "layouts").glob("features-*/shard-*")}
    assert 2 <= len(kept) <= 4  # each rank its half ahead, and what its first faces needed of the other half
