"""Each file of configs/annotator/ and configs/labels/ runs, on little data."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import train
from datamodules.readers import FER2013Reader
from lightning_modules.annotator import LabelAnnotator
from synfer.labels.label_table import LabelTable, write_label_table
from tests.fixtures.tiny_generator import tiny_generator

CONFIGS = Path(train.__file__).parent / "configs"
HERE = sorted(
    f"{path.parent.name}/{path.name}" for room in ("annotator", "labels") for path in (CONFIGS / room).glob("*.yaml")
)
QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
OF_CODE = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
OF_VOTE = ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt")


def config(name: str) -> str:
    return f"--config={CONFIGS / name}"


@pytest.fixture(scope="module")
def fer2013(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in FER2013's layout: 24 training rows whose original label is i mod 7 and whose FER+ label is i mod 8."""
    folder = tmp_path_factory.mktemp("fer2013")
    random = np.random.default_rng(0)
    for usage in ("Training", "PublicTest"):
        images = []
        for _ in range(24):
            png = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (48, 48), dtype=np.uint8)).save(png, "PNG")
            images.append(png.getvalue())
        table = {
            "row": pa.array(range(24 * (usage != "Training"), 24 + 24 * (usage != "Training"))),
            "image": pa.array(images, pa.binary()),
            "label": pa.array([row % 7 for row in range(24)]),
            "usage": pa.array([usage] * 24),
            "ferplus_votes": pa.array([[10 * (c == row % 8) for c in range(10)] for row in range(24)]),
        }
        pq.write_table(pa.table(table), folder / f"{usage}.parquet")
    return folder


def multiplications(annotator: LabelAnnotator) -> int:
    """Of the network that looks at one face's latents."""
    network: Any = annotator.head.branches["features"]
    network = network.network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.forward_features(torch.zeros(1, 1, 48, 48))
    return counter.get_total_flops() // 2


def test_every_file_is_tested_here_or_with_the_relabeller() -> None:
    tests = (
        Path(__file__).read_text()
        + Path(__file__).parents[1].joinpath("lightning_modules/test_relabeller.py").read_text()
    )
    assert HERE and all(name in tests for name in HERE)


def test_feranno_on_fer2013_from_fit_to_relabelling(fer2013: Path, tmp_path: Path) -> None:
    three_sizes = {
        "block_out_channels": [32, 32, 32],
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "norm_num_groups": 8,
    }
    changes = {
        "image_size": 48,
        "label_space": "basic7",
        "codec_config": {"patch": 4, "channels": 1},
        "unet": three_sizes,
    }
    tiny_generator(**changes).save_trained(tmp_path / "generator")
    data = [config("data/fer2013.yaml"), f"--data.reader.init_args.root={fer2013}"]
    for fold in range(2):
        small = [f"--model.generator={tmp_path / 'generator'}", "--model.width=16", "--trainer.max_epochs=2"]
        small += [f"--model.feature_cache={tmp_path / 'cache'}", "--trainer.accelerator=cpu", "--data.batch_size=6"]
        folds = ["--data.folds=2", f"--data.fold={fold}", f"--run_dir={tmp_path / str(fold)}"]
        cli = train.main(["fit", *data, config("annotator/fer2013.yaml"), *small, *folds, *QUIET])
        assert isinstance(cli.model, LabelAnnotator) and cli.trainer.global_step == 4
    seven = [config("data/ferplus_shared7.yaml"), f"--data.reader.init_args.reader.init_args.root={fer2013}"]
    last = f"--ckpt_path={tmp_path / '1' / 'checkpoints' / 'last.ckpt'}"
    train.main(["test", *seven, config("annotator/fer2013.yaml"), *small, last, *QUIET, f"--run_dir={tmp_path / 't'}"])
    assert "test/accuracy" in json.loads((tmp_path / "t" / "summary.json").read_text())["metrics"]
    deep = [config("annotator/fer2013.yaml"), config("annotator/deep_head.yaml"), *small, f"--run_dir={tmp_path / 'd'}"]
    deep_cli = train.main(["fit", *data, *deep, *QUIET])
    millions = [multiplications(one.model) / 1e6 for one in (cli, deep_cli)]
    assert millions == pytest.approx([18.8, 20.5], abs=0.1)  # as deep_head.yaml says
    paths = ",".join(str(tmp_path / str(fold) / "checkpoints" / "last.ckpt") for fold in range(2))
    relabel = [
        config("labels/relabel.yaml"),
        "--model.voters={feranno: [" + paths + "]}",
        "--trainer.accelerator=cpu",
    ]
    train.main(["predict", *data, *relabel, *QUIET, f"--run_dir={tmp_path / 'relabel'}"])
    score = [config("labels/score_fer2013.yaml"), f"--data.reader.init_args.root={fer2013}"]
    score += [f"--model.label_table={tmp_path / 'relabel' / 'labels.parquet'}", f"--run_dir={tmp_path / 'score'}"]
    train.main(["validate", *score, *QUIET])
    metrics = json.loads((tmp_path / "score" / "summary.json").read_text())["metrics"]
    assert metrics["val/rows"] == 21 and metrics["val/rows_left_out"] == 3  # contempt is none of the seven
    assert "val/agreement/feranno" in metrics


def test_score_against_ferplus_by_hand(fer2013: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = FER2013Reader(str(fer2013)).read("train")
    space = rows.label_space
    truth = np.array([space.index(OF_VOTE[i % 8]) if i % 8 < 7 else -1 for i in range(24)])
    np.testing.assert_array_equal(rows.label, [space.index(OF_CODE[i % 7]) for i in range(24)])
    new = np.where(np.arange(24) < 12, truth, rows.label)  # the first half is repaired, contempt left as it was
    new = np.where(truth < 0, rows.label, new)
    table = LabelTable(rows.sample_id, rows.content_hash, space, rows.label, np.eye(7, dtype=np.float32)[new])
    path = write_label_table(tmp_path / "labels.parquet", table)
    score = [config("labels/score_fer2013.yaml"), f"--data.reader.init_args.root={fer2013}", *QUIET]
    train.main(["validate", *score, f"--model.label_table={path}", f"--run_dir={tmp_path / 'run'}"])
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    known = truth >= 0
    assert metrics["val/agreement_old"] == pytest.approx((rows.label == truth)[known].mean(), abs=1e-6)
    assert metrics["val/agreement_new"] == pytest.approx((new == truth)[known].mean(), abs=1e-6)
    assert metrics["val/harmed"] == 0 and 0 < metrics["val/repaired"] < 1
    happy = truth == space.index("happy")
    assert metrics["val/recall_new/happy"] == pytest.approx((new == truth)[happy].mean(), abs=1e-6)
    strangers = LabelTable(
        np.array([f"x{i}" for i in range(24)]), rows.content_hash, space, rows.label, np.eye(7, dtype=np.float32)[new]
    )
    write_label_table(path, strangers)
    with pytest.raises(SystemExit):
        train.main(["validate", *score, f"--model.label_table={path}", f"--run_dir={tmp_path / 'other'}"])
    assert "found none of the 24 rows" in capsys.readouterr().err


def test_a_classifier_of_seven_is_scored_on_ferplus(fer2013: Path, tiny_run: list[str], tmp_path: Path) -> None:
    small = [argument for argument in tiny_run if "drawn.yaml" not in argument and "count" not in argument]
    data = [config("data/ferplus_shared7.yaml"), f"--data.reader.init_args.reader.init_args.root={fer2013}"]
    drawn = train.main(["fit", *tiny_run, "--trainer.fast_dev_run=true", *QUIET, f"--run_dir={tmp_path / 'drawn'}"])
    drawn.trainer.save_checkpoint(tmp_path / "trained.ckpt")
    trained = f"--ckpt_path={tmp_path / 'trained.ckpt'}"
    cli = train.main(["test", *data, *small, *QUIET, trained, f"--run_dir={tmp_path}"])
    assert cli.datamodule.test_table is not None and len(cli.datamodule.test_table) == 21
    assert "test/accuracy" in json.loads((tmp_path / "summary.json").read_text())["metrics"]
