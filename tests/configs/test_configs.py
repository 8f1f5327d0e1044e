"""configs/ is the set of examples: each file parses, and one batch of it runs."""

from __future__ import annotations

import io
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from PIL import Image

import train
from datamodules.readers import SyntheticSetReader
from datamodules.rows.near_copies import NEAR_COPY
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.generator_file import generator_arguments
from synfer.synthesis.request import SamplingSettings
from tests.fixtures.tiny_generator import SIDE, save_base, save_checkpoint

CONFIGS = Path(train.__file__).parent / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
ROOMS = (
    *("data", "debug", "trainer", "sweeps", "annotator", "captions", "labels", "synthesise", "rivals", "presets"),
    *("probes", "few_shot", "zero_shot", "distillation"),
)
"""Those with tests of their own; annotator, labels: test_annotator_configs.py; captions: test_caption_configs.py;
presets: test_presets.py; probes, few_shot, zero_shot: test_representation_configs.py; distillation:
test_distillation_configs.py."""
OF_ROOM = {room: [name for name in FILES if name.startswith(f"{room}/")] for room in ROOMS}
AFTER = {  # change what another file says
    "generator/drawn_au.yaml": "generator/drawn.yaml",
    "generator/text_in_time.yaml": "generator/fer2013.yaml",
    "mixed/gpu.yaml": "mixed/fer2013.yaml",
    "mixed/layout.yaml": "mixed/fer2013.yaml",
}
OF_A_FOLDER = "mixed/own_folder.yaml"  # names its own reader of files: tests/test_own_faces.py
LOOPS = [
    name
    for name in FILES
    if "synthesis" in yaml.safe_load((CONFIGS / name).read_text())
    and not name.startswith("presets/")
    and name != OF_A_FOLDER
]
OTHERS = [n for n in FILES if n.split("/")[0] not in ROOMS and n not in (OF_A_FOLDER, *LOOPS)]  # runs of their own

ONE_BATCH = [
    "--trainer.fast_dev_run=true",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.strategy=auto",
    "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--data.batch_size=8",
    "--data.eval_batch_size=8",
    "--data.num_workers=0",
]
DRAWN = [f"--config={CONFIGS / 'data/drawn.yaml'}", "--data.reader.init_args.count={train: 16, val: 8, test: 8}"]
TINY = [f"--config={CONFIGS / 'classifier/tiny.yaml'}"]


WEIGHTS = {"generator": "generator", "classifier": "classifier.ckpt", "voter": "voter.ckpt"}


def config(name: str) -> str:
    return f"--config={CONFIGS / name}"


def content(*names: str) -> dict[str, Any]:
    merged = OmegaConf.to_container(OmegaConf.merge(*(OmegaConf.load(CONFIGS / name) for name in names)))
    assert isinstance(merged, dict)
    return merged


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with noise in place of FER2013 (``fer2013``) and of an image folder (``image_folder``)."""
    folder = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    (folder / "fer2013").mkdir()
    for name, usage, first_row in (("train", "Training", 0), ("valid", "PublicTest", 16)):
        images, votes = [], []
        for row in range(16):
            png = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (48, 48), dtype=np.uint8)).save(png, "PNG")
            images.append(png.getvalue())
            votes.append([10 if column == row % 8 else 0 for column in range(10)])
        table = {
            "row": pa.array(range(first_row, first_row + 16)),
            "image": pa.array(images, pa.binary()),
            "label": pa.array([row % 7 for row in range(16)]),
            "usage": pa.array([usage] * 16),
            "ferplus_votes": pa.array(votes, pa.list_(pa.uint8())),
        }
        pq.write_table(pa.table(table), folder / "fer2013" / f"{name}.parquet")
    for split in ("train", "val", "test"):
        for expression in ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"):
            place = folder / "image_folder" / split / expression
            place.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained weights of the FER+ names: a ``generator`` folder and a ``classifier`` checkpoint."""
    folder = tmp_path_factory.mktemp("weights")
    made = content("generator/tiny.yaml")["model"]["init_args"]
    made |= {"label_space": "ferplus8", "sampling": SamplingSettings(num_steps=2)}
    ExpressionGenerator(**generator_arguments(made)).save_trained(folder / "generator")
    classifier = content("classifier/tiny.yaml")["model"]["init_args"]
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(ExpressionClassifier(**{**classifier, "label_space": "ferplus8"}))
    trainer.save_checkpoint(folder / "classifier.ckpt")
    shutil.copy(folder / "classifier.ckpt", folder / "voter.ckpt")
    return {name: folder / file for name, file in WEIGHTS.items()}


@pytest.mark.parametrize("name", OTHERS)
def test_one_batch(name: str, tmp_path: Path, weights: dict[str, Path]) -> None:
    layers = [AFTER[name], name] if name in AFTER else [name]
    found = content(*layers)
    model = [] if "model" in found else TINY
    space = found.get("model", {}).get("init_args", {}).get("label_space", "basic7")
    more = [f"--data.reader.init_args.label_space={space}", DRAWN[1]]  # few faces, whatever the file says
    if "affect" in found.get("model", {}).get("init_args", {}):
        more.append("--data.reader.init_args.affect=true")
    if found.get("model", {}).get("class_path", "").endswith("ExpressionGenerator"):  # a small sample grid will do
        more += ["--model.init_args.grid_samples=1", "--model.init_args.sampling.num_steps=2"]
    if found.get("model", {}).get("init_args", {}).get("base") is not None:  # at 16 pixels, a step as a large one's
        more += [f"--model.init_args.base={save_base(tmp_path / 'base')}", f"--model.init_args.image_size={SIDE}"]
        more += [f"--model.init_args.cache.path={tmp_path / 'cache'}", f"--data.image_size={SIDE}"]
        more += ["--trainer.num_nodes=1"]
    if found.get("model", {}).get("class_path", "").endswith("SemanticAugmenter"):
        more.append("--model.init_args.grid_samples=1")
    if found.get("model", {}).get("init_args", {}).get("guide") is not None:
        more.append(f"--model.init_args.guide={weights['classifier']}")
    if "latents_of" in found.get("model", {}).get("init_args", {}):
        more.append(f"--model.init_args.latents_of={weights['generator']}")
    cli = train.main(["fit", *model, *DRAWN, *map(config, layers), *more, *ONE_BATCH, f"--run_dir={tmp_path}"])
    assert cli.trainer.global_step == 1


@pytest.mark.parametrize("name", OF_ROOM["synthesise"])
def test_synthetic_set(name: str, tmp_path: Path, weights: dict[str, Path]) -> None:
    generator = ExpressionGenerator.load_trained(weights["generator"])
    save_checkpoint(generator, tmp_path / "generator.ckpt")
    more = ["--data.reader.init_args.label_space=ferplus8", "--model.init_args.label_space=ferplus8"]
    more += [
        "--data.synthesis_count=8",
        "--model.init_args.sampling.num_steps=2",
        f"--ckpt_path={tmp_path}/generator.ckpt",
    ]
    if "layout" in content(name):
        voters = f"[{weights['classifier']},{weights['voter']}]"
        more += [f"--guidance.guide={weights['classifier']}", f"--pseudo_labels.voters={voters}"]
        more += ["--layout.num_inverted=1", "--guidance.start_step=0"]
    one_batch = [option for option in ONE_BATCH if "fast_dev_run" not in option]
    tiny = config("generator/tiny.yaml")
    train.main(["predict", *DRAWN, tiny, config(name), *more, *one_batch, f"--run_dir={tmp_path / 'run'}"])
    table = SyntheticSetReader(str(tmp_path / "run" / "synthetic_set"), "ferplus8").read("train")
    assert table.report.read == 8


@pytest.mark.parametrize("name", LOOPS)
def test_loop(name: str, tmp_path: Path, weights: dict[str, Path]) -> None:
    layers = [AFTER[name], name] if name in AFTER else [name]
    found = content(*layers)
    names = ["--data.reader.init_args.label_space=ferplus8", "--model.init_args.label_space=ferplus8"]
    few = ["--synthesis.batch_size=8", "--synthesis.initial_samples=8"]
    given = [
        f"--synthesis.generator={weights['generator']}",
        "--guidance.enabled=true",
        f"--guidance.guide={weights['classifier']}",
        "--pseudo_labels.enabled=true",
        f"--pseudo_labels.voters=[{weights['classifier']},{weights['voter']}]",
    ]
    files = [config(layer) for layer in layers]
    cli = train.main(["fit", *TINY, *DRAWN, *files, *names, *ONE_BATCH, *few, *given, f"--run_dir={tmp_path}"])
    synthetic = round(found["data"]["synthetic_ratio"] * 8)
    assert cli.datamodule.counts == {"real": 8 - synthetic, "synthetic": synthetic}
    took_part = {type(callback).__name__: callback for callback in cli.trainer.callbacks}
    made, thrown_away = took_part["OnlineSynthesis"].made, took_part["OnlineSynthesis"].discarded
    assert made % 8 == 0 and made - thrown_away >= 8 > made - 8 - thrown_away  # one more where copies go
    assert took_part["PseudoLabeller"].seen == made
    from_layout = found.get("layout", {}).get("enabled", False)
    steps = found["layout"]["num_inverted"] if from_layout else found["synthesis"]["sampling"]["num_steps"]
    guided = range(found["guidance"]["start_step"], steps, found["guidance"].get("every", 1))
    # Fewer where the guide was sure of all samples before the end.
    assert 0 < len(took_part["SemanticGuidance"].losses) <= len(guided)


def test_faces_made_ahead_are_made_as_those_on_the_fly() -> None:
    ahead, on_the_fly = content("synthesise/fer2013.yaml"), content("mixed/fer2013.yaml")
    assert ahead["model"]["init_args"]["sampling"] == on_the_fly["synthesis"]["sampling"]
    assert ahead["data"]["eval_batch_size"] == on_the_fly["synthesis"]["batch_size"]
    for group in ("layout", "guidance", "pseudo_labels"):
        assert ahead[group] == {key: on_the_fly[group][key] for key in ahead[group]}
    assert not ahead["layout"]["enabled"] and ahead["layout"]["max_similarity"] == NEAR_COPY  # RESULTS.md: copies


EMBEDDED = ("DrawnReader", "FER2013Reader", "ImageFolderReader")  # the others: test_data_set_configs.py


def reader_of(name: str) -> str:
    """Returns the class of a data config's reader, or of the one that it wraps."""
    reader = content(name)["data"]["reader"]
    return reader["init_args"].get("reader", reader)["class_path"].rpartition(".")[2]


@pytest.mark.parametrize("name", [name for name in OF_ROOM["data"] if reader_of(name) in EMBEDDED])
def test_data(name: str, tmp_path: Path, faces: Path) -> None:
    reader = content(name)["data"]["reader"]
    space = "ferplus8" if str(reader["init_args"].get("labels", "")).startswith("ferplus") else "basic7"
    args = [*TINY, f"--model.init_args.label_space={space}", config(name), *ONE_BATCH]
    if "count" in reader["init_args"]:
        args.append(DRAWN[1])
    else:
        within = "reader.init_args." if "reader" in reader["init_args"] else ""  # a reader of another one's rows
        inner = reader["init_args"]["reader"] if within else reader
        source = "fer2013" if inner["class_path"].endswith("FER2013Reader") else "image_folder"
        args.append(f"--data.reader.init_args.{within}root={faces / source}")
    cli = train.main(["fit", *args, f"--run_dir={tmp_path}"])
    assert cli.trainer.state.finished and cli.trainer.global_step == 1
    cli.trainer.save_checkpoint(tmp_path / "trained.ckpt")  # a trial of one batch writes none
    cli = train.main(["test", *args, f"--ckpt_path={tmp_path / 'trained.ckpt'}", f"--run_dir={tmp_path}"])
    assert cli.trainer.state.finished and cli.trainer.global_step == 0


@pytest.mark.parametrize("name", OF_ROOM["rivals"])
def test_rival(name: str, tmp_path: Path) -> None:
    found = content(name)
    cli = train.main(["fit", *DRAWN, *TINY, config(name), *ONE_BATCH, f"--run_dir={tmp_path}"])
    assert cli.trainer.global_step == 1
    said = {**found.get("data", {}), **found.get("model", {}).get("init_args", {})}
    assert said.keys() <= {"class_sampling", "augmentation", "class_weights", "label_smoothing", "loss"}
    sampling, loss = said.get("class_sampling", {}), said.get("loss", {})
    assert sampling.items() <= asdict(cli.datamodule.class_sampling).items()
    assert said.get("augmentation", {}).items() <= asdict(cli.datamodule.augmentation).items()
    assert loss.items() <= asdict(cli.model.loss_settings).items()


@pytest.mark.parametrize("name", OF_ROOM["debug"])
def test_debug(name: str, tmp_path: Path) -> None:
    few = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.batch_size=8"]
    cli = train.main(["fit", *TINY, *DRAWN, config(name), *few, f"--run_dir={tmp_path}"])
    assert cli.trainer.global_step in (1, 2)


@pytest.mark.parametrize("name", OF_ROOM["trainer"])
def test_trainer(name: str, tmp_path: Path) -> None:
    parsed = train.parse(["fit", *TINY, *DRAWN, config(name)])
    for key, value in content(name)["trainer"].items():
        assert parsed.trainer[key] == value
    on_one_cpu = parsed.trainer.accelerator == "cpu" and parsed.trainer.devices == 1
    if on_one_cpu or (parsed.trainer.accelerator == "auto" and torch.cuda.device_count() < 2):
        small = ["--data.batch_size=8", "--data.eval_batch_size=8", "--trainer.fast_dev_run=true"]
        train.main(["fit", *TINY, *DRAWN, config(name), *small, f"--run_dir={tmp_path}"])


@pytest.mark.gpu
def test_trainer_on_gpu(tmp_path: Path) -> None:
    args = [*TINY, *DRAWN, config("trainer/gpu_ddp.yaml"), "--trainer.devices=1", "--trainer.fast_dev_run=true"]
    cli = train.main(["fit", *args, f"--run_dir={tmp_path}"])
    assert torch.device(cli.trainer.strategy.root_device).type == "cuda"
