"""configs/probes, few_shot and zero_shot: each from its file to its numbers, on a few drawn faces."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

import train
from tests.fixtures.one_cpu import ONE_CPU
from tests.fixtures.outside_models import save_clip
from tests.fixtures.tiny_generator import save_checkpoint, tiny_generator

CONFIGS = Path(train.__file__).parent / "configs"
FACES = ["--data.reader.init_args.count={train: 42, val: 14, test: 14}", "--data.reader.init_args.image_size=32"]
DRAWN = [f"--config={CONFIGS / 'data/drawn.yaml'}", *FACES]
SMALL = [
    "--model.init_args.backbone=resnet10t",
    "--model.init_args.backbone_kwargs={stem_width: 8, channels: [8, 8, 16, 16]}",
    "--model.init_args.image_size=16",
    "--model.init_args.head={hidden: 16, out: 8}",
    "--data.batch_size=14",
]
ONE_EPOCH = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]


def config(name: str) -> str:
    return f"--config={CONFIGS / name}"


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny pre-training."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    train.main(["fit", *DRAWN, config("pretraining/simclr.yaml"), *SMALL, *ONE_CPU, *ONE_EPOCH, f"--run_dir={folder}"])
    found = summary(folder)
    assert found["status"] == "finished" and 0 <= found["metrics"]["val/knn_accuracy"] <= 1
    return folder


def test_pretraining_on_synthetic_faces(tmp_path: Path) -> None:
    """Of a finished set alone, and half of them made on the fly."""
    drawn = {"count": {"train": 28}, "image_size": 32, "label_space": "basic7"}
    reader = json.dumps({"class_path": "datamodules.readers.DrawnReader", "init_args": drawn})
    generator = save_checkpoint(tiny_generator(label_space="basic7"), tmp_path / "generator.ckpt")
    made = ["--synthesis.enabled=true", f"--synthesis.generator={generator}", "--synthesis.batch_size=7"]
    made += ["--synthesis.initial_samples=7", "--synthesis.sampling={num_steps: 1, guidance_scale: 1.0}"]
    ways = {"1.0": [f"--data.synthetic_reader={reader}"], "0.5": made}
    files = [*DRAWN, config("pretraining/simclr.yaml"), *SMALL, *ONE_CPU, "--trainer.max_steps=2"]
    for ratio, more in ways.items():
        cli = train.main(["fit", *files, f"--data.synthetic_ratio={ratio}", *more, f"--run_dir={tmp_path / ratio}"])
        synthetic = round(float(ratio) * 28)
        assert cli.datamodule.counts == {"real": 28 - synthetic, "synthetic": synthetic}
        assert summary(tmp_path / ratio)["metrics"]["train/embedding_std"] > 0


@pytest.mark.parametrize("name", ["linear", "fine_tuning"])
@pytest.mark.parametrize("labels", [None, "labels_10"])
def test_probe(name: str, labels: str | None, pretrained: Path, tmp_path: Path) -> None:
    layers = [config(f"probes/{name}.yaml"), *([config(f"probes/{labels}.yaml")] if labels else [])]
    given = [f"--model.init_args.backbone_weights={pretrained}", "--data.batch_size=14"]
    cli = train.main(["fit", *DRAWN, *layers, *given, *ONE_CPU, *ONE_EPOCH, f"--run_dir={tmp_path / 'run'}"])
    rows = cli.datamodule.train_table
    assert rows.class_counts() == dict.fromkeys(rows.label_space, 1 if labels else 6)
    assert cli.model._config["backbone"] == "resnet10t" and cli.model.image_size == 16
    found = summary(tmp_path / "run")
    assert found["weights_from"]["path"] == str(pretrained) and found["weights_from"]["kind"] == "pretraining"
    stored = torch.load(pretrained / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    frozen = torch.equal(cli.model.backbone.state_dict()["bn1.running_mean"], stored["backbone.bn1.running_mean"])
    assert frozen == (name == "linear")


@pytest.mark.parametrize("name", ["linear", "fine_tuning"])
def test_control_of_a_probe(name: str, pretrained: Path, tmp_path: Path) -> None:
    layers = [config(f"probes/{name}.yaml"), config("probes/random.yaml")]
    given = [f"--model.init_args.backbone_weights={pretrained}", "--data.batch_size=14"]
    cli = train.main(["fit", *DRAWN, *layers, *given, *ONE_CPU, *ONE_EPOCH, f"--run_dir={tmp_path / 'run'}"])
    assert cli.model._config["backbone"] == "resnet10t" and cli.model.image_size == 16
    assert "weights_from" not in summary(tmp_path / "run") or summary(tmp_path / "run")["weights_from"] is None
    stored = torch.load(pretrained / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    now, then = cli.model.backbone.state_dict()["conv1.0.weight"], stored["backbone.conv1.0.weight"]
    assert now.shape == then.shape and not torch.equal(now, then)


def test_one_percent_is_a_part_of_ten(tmp_path: Path) -> None:
    shares = [
        train.parse(["fit", *DRAWN, config("classifier/tiny.yaml"), config(f"probes/labels_{n}.yaml")]).data
        for n in (1, 10)
    ]
    assert [share.training_fraction for share in shares] == [0.01, 0.1]
    assert {share.subset_seed for share in shares} == {0}


def test_nearest_faces(pretrained: Path, tmp_path: Path) -> None:
    given = [f"--model.init_args.backbone_weights={pretrained}"]
    train.main(["validate", *DRAWN, config("probes/knn.yaml"), *given, *ONE_CPU, f"--run_dir={tmp_path / 'run'}"])
    found, before = summary(tmp_path / "run"), summary(pretrained)
    # The same network, faces and vote as at the end of the pre-training.
    assert found["metrics"]["val/knn_accuracy"] == pytest.approx(before["metrics"]["val/knn_accuracy"])
    assert found["weights_from"]["kind"] == "pretraining"


def test_few_shot(pretrained: Path, tmp_path: Path) -> None:
    given = [f"--model.init_args.backbone_weights={pretrained}", "--model.init_args.shots=[1,3]"]
    command = ["test", *DRAWN, config("few_shot/k_shot.yaml"), *given, "--model.init_args.draws=3", *ONE_CPU]
    for again in ("run", "again"):
        train.main([*command, f"--run_dir={tmp_path / again}"])
    with (tmp_path / "run" / "few_shot.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["head"], row["k"]) for row in rows] == [
        (head, k) for head in ("linear", "prototype", "tip_adapter") for k in ("1", "3")
    ]
    metrics = summary(tmp_path / "run")["metrics"]
    whole = json.loads((tmp_path / "run" / "few_shot.json").read_text())
    for row in rows:
        drawn = [d for d in whole["draws"] if (d["head"], str(d["k"])) == (row["head"], row["k"])]
        assert len(drawn) == 3 and all(len(set(d["shown"])) == 7 * int(row["k"]) for d in drawn)
        mean = sum(d["accuracy"] for d in drawn) / 3
        assert float(row["accuracy"]) == pytest.approx(mean) and float(row["accuracy_half_width"]) >= 0
        assert metrics[f"test/few_shot_accuracy/{row['head']}_k{row['k']}"] == pytest.approx(mean)
    assert (tmp_path / "again" / "few_shot.json").read_text() == (tmp_path / "run" / "few_shot.json").read_text()


def test_few_shot_with_synthetic_faces_and_without_real_ones(pretrained: Path, tmp_path: Path) -> None:
    drawn = {"count": {"train": 21}, "image_size": 32, "label_space": "basic7"}
    reader = {"class_path": "datamodules.readers.DrawnReader", "init_args": drawn}
    given = [f"--model.init_args.backbone_weights={pretrained}", "--model.init_args.shots=[0,1]"]
    given += ["--model.init_args.synthetic_shots=2", "--model.init_args.draws=2"]
    command = ["validate", *DRAWN, config("few_shot/k_shot.yaml"), *given, *ONE_CPU]
    train.main([*command, f"--data.synthetic_reader={json.dumps(reader)}", f"--run_dir={tmp_path / 'run'}"])
    whole = json.loads((tmp_path / "run" / "few_shot.json").read_text())
    assert {(d["k"], len(d["shown"])) for d in whole["draws"]} == {(0, 14), (1, 21)}
    with pytest.raises(SystemExit):
        train.main([*command, f"--run_dir={tmp_path / 'none'}"])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "model")


def test_zero_shot(clip: Path, tmp_path: Path) -> None:
    given = [f"--model.init_args.clip={clip}", *ONE_CPU]
    train.main(["test", *DRAWN, config("zero_shot/clip.yaml"), *given, f"--run_dir={tmp_path / 'run'}"])
    metrics = summary(tmp_path / "run")["metrics"]
    assert (
        metrics["test/uar"] == metrics["test/mean_class_accuracy"] and metrics["test/war"] == metrics["test/accuracy"]
    )


@pytest.mark.parametrize("target", ["captions", "pretrained"])
def test_projection(target: str, clip: Path, pretrained: Path, tmp_path: Path) -> None:
    given = [f"--model.init_args.clip={clip}", *ONE_CPU]
    given.append(f"--model.init_args.target={pretrained if target == 'pretrained' else target}")
    files = [*DRAWN, config("zero_shot/projection.yaml"), *given]
    run = tmp_path / "run"
    train.main(["fit", *files, *ONE_EPOCH, "--data.batch_size=14", f"--run_dir={run}"])
    fitted = summary(run)["metrics"]
    assert "val/uar" in fitted
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert list(stored["state_dict"]) == ["projection.weight"] and stored["kind"] == "zero_shot"
    train.main(["validate", *files, f"--ckpt_path={run}", f"--run_dir={tmp_path / 'scored'}"])
    assert summary(tmp_path / "scored")["metrics"]["val/war"] == pytest.approx(fitted["val/war"])
    with pytest.raises(SystemExit):  # random numbers are worth no score
        train.main(["validate", *files, f"--run_dir={tmp_path / 'none'}"])
