"""Each preset runs one batch, on a folder of faces and with weights of its own kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch import Trainer
from PIL import Image

import train
from lightning_modules.classifier import ExpressionClassifier
from lightning_modules.generator import ExpressionGenerator
from lightning_modules.generator_file import generator_arguments
from synfer.synthesis.request import SamplingSettings
from tests.configs.test_configs import ONE_BATCH, content

PRESETS = Path(train.__file__).parent / "configs" / "presets"
OF_OWN_FACES = {"classifier", "guide", "generator", "mixed"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``faces`` of noise, and runs of a generator and a guide that nobody trained."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for expression in ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"):
            place = folder / "faces" / split / expression
            place.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(place / f"{number}.png")
    generator = {**content("generator/tiny.yaml")["model"]["init_args"], "sampling": SamplingSettings(num_steps=3)}
    guide = content("classifier/tiny.yaml")["model"]["init_args"]
    for name, module in (
        ("generator", ExpressionGenerator(**generator_arguments(generator))),
        ("guide", ExpressionClassifier(**guide)),
    ):
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
        trainer.strategy.connect(module)
        (folder / "runs" / name / "checkpoints").mkdir(parents=True)
        trainer.save_checkpoint(folder / "runs" / name / "checkpoints" / "last.ckpt")
    return folder


def test_every_preset_is_run() -> None:
    assert {path.stem for path in PRESETS.glob("*.yaml")} == OF_OWN_FACES | {"demo"}


@pytest.mark.parametrize("name", sorted(OF_OWN_FACES | {"demo"}))
def test_one_batch(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the presets name runs/generator and runs/guide
    given = ["--preset", name, *(["--data", "faces"] if name in OF_OWN_FACES else [])]
    few = ["--synthesis.batch_size=4", "--synthesis.initial_samples=8"] if name in ("mixed", "demo") else []
    few += ["--synthesis.sampling.num_steps=3", "--guidance.start_step=0"] if name == "mixed" else []
    few += ["--model.grid_samples=1", "--model.sampling.num_steps=1"] if name == "generator" else []
    few += ["--synthesis.sampling.num_steps=1"] if name == "demo" else []  # its generator is that of the project
    cli = train.main(["fit", *given, *few, *ONE_BATCH, f"--run_dir=runs/of-{name}"])
    assert cli.trainer.global_step == 1
    made = 4 if name in ("mixed", "demo") else 0
    assert cli.datamodule.counts == {"real": 8 - made, "synthetic": made}
    if name in OF_OWN_FACES:
        assert str(cli.config.fit.data.reader.init_args.root) == "faces"


def test_the_presets_of_own_faces_go_together() -> None:
    """What a mixed run reads has the size of its faces, and the network that it is compared with is its own."""
    parsed = {name: train.parse(["fit", "--preset", name]) for name in sorted(OF_OWN_FACES)}
    assert {config.data.reader.init_args.image_size for config in parsed.values()} == {48}
    assert {config.model.init_args.image_size for config in parsed.values()} == {48}
    assert {str(config.model.init_args.label_space) for config in parsed.values()} == {"basic7"}
    assert parsed["mixed"].model == parsed["classifier"].model
    assert parsed["guide"].model.init_args.backbone_kwargs != parsed["mixed"].model.init_args.backbone_kwargs
