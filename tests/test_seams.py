"""A new reader, AU table, synthesiser, voter, sampler, score and export: a class each, from a config to the numbers.

Nothing of the project is touched but the one table that each is entered in; readers and scores need none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import export
import train
from datamodules.au_tables.settings import AU_TABLES
from datamodules.readers.reader import Reader, Split
from datamodules.rows.sample_table import ArrayImages, SampleTable, one_hot
from synfer.export.exporter import EXPORTERS, ExportSettings
from synfer.labels.voters import VOTERS, VoterKind
from synfer.synthesis.diffusion.samplers import DDIM, SAMPLERS
from synfer.synthesis.synthesiser import SYNTHESISERS
from tests.fixtures.drawn_synthesiser import LOADER, save_drawn
from tests.fixtures.tiny_generator import save_checkpoint, tiny_generator

NAMES = ("happy", "sad")


class ToyReader(Reader):
    """Bright faces are happy, dark ones sad."""

    def __init__(self, count: int = 16) -> None:
        self.label_space, self.count = NAMES, count

    def read(self, split: Split) -> SampleTable:
        label = np.arange(self.count) % 2
        noise = np.random.default_rng(("train", "val", "test").index(split))
        images = noise.integers(0, 99, (self.count, 32, 32), dtype=np.uint8) + (150 * (1 - label[:, None, None]))
        images = images.astype(np.uint8)
        return SampleTable(
            images=ArrayImages(images),
            label=label,
            soft_label=one_hot(label, 2),
            sample_id=np.array([f"{split}-{row}" for row in range(self.count)]),
            content_hash=np.array([hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images]),
            label_space=NAMES,
            split=split,
        )


class ToyTable:
    """Every face shows AU12, at the strength that its file says."""

    names = ("AU12",)
    asked = 0

    def __init__(self, path: Path, id_column: str | None) -> None:
        self.strength = float(path.read_text())

    def read(self, ids: Sequence[str]) -> np.ndarray:
        type(self).asked += len(ids)
        return np.full((len(ids), 1), self.strength, dtype=np.float32)


class ToyVoter:
    """Sure that every face is happy."""

    label_space = NAMES
    seen = 0

    def predict_probabilities(self, image: Tensor) -> Tensor:
        type(self).seen += len(image)
        return torch.tensor([[0.9, 0.1]]).expand(len(image), 2)

    def weights_fingerprint(self) -> str:
        return "f" * 16

    def to(self, device: Any) -> ToyVoter:
        return self


class ToySampler(DDIM):
    """DDIM, counting its steps."""

    steps = 0

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        type(self).steps += 1
        return super().step(output, i, x)


class ToyScore:
    """How bright a face is."""

    name = "brightness"
    higher_is_better = True

    def __call__(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        return images.mean((1, 2, 3))


class ToyExporter:
    """Writes the fingerprint alone."""

    kind = "diffusion"

    def __init__(self, settings: ExportSettings) -> None:
        self.dtype = settings.dtype

    def export(self, module: Any, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "fingerprint.txt").write_text(f"{module.weights_fingerprint()} {self.dtype}")

    def load(self, folder: Path) -> str:
        return (folder / "fingerprint.txt").read_text()


def write_config(path: Path, content: Mapping[str, Any]) -> str:
    path.write_text(yaml.safe_dump(dict(content)))
    return f"--config={path}"


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    """Data of the toy reader and a tiny classifier, as configs."""
    model = {
        "class_path": "lightning_modules.ExpressionClassifier",
        "init_args": {
            "label_space": list(NAMES),
            "backbone": "resnet10t",
            "backbone_kwargs": {"stem_width": 4, "channels": [4, 4, 8, 8]},
            "image_size": 32,
        },
    }
    trainer = {"accelerator": "cpu", "devices": 1, "logger": False, "max_epochs": 1}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    data = {"reader": {"class_path": "tests.test_seams.ToyReader"}, "batch_size": 8}
    return [
        write_config(tmp_path / "model.yaml", {"model": model, "trainer": {**trainer, **quiet}}),
        write_config(tmp_path / "data.yaml", {"data": data}),
    ]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_reader_table_synthesiser_and_voter_in_one_mixed_run(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AU_TABLES, "toy", ToyTable)
    monkeypatch.setitem(SYNTHESISERS, "drawn", LOADER)
    is_toy = VoterKind("a toy", lambda path, found: found.get("toy") is True, lambda *given: ToyVoter())
    monkeypatch.setattr("lightning_modules.voter.VOTERS", [*VOTERS, is_toy])
    (tmp_path / "strength.txt").write_text("0.75")
    (tmp_path / "voter").mkdir()
    (tmp_path / "voter" / "config.json").write_text('{"toy": true}')
    mixed = {
        "data": {"synthetic_ratio": 0.5, "au_table": {"format": "toy", "path": str(tmp_path / "strength.txt")}},
        "synthesis": {"enabled": True, "generator": str(save_drawn(tmp_path / "drawn", NAMES, 32))},
        "pseudo_labels": {"enabled": True, "voters": [str(tmp_path / "voter")]},
    }
    cli = train.main(["fit", *base, write_config(tmp_path / "mixed.yaml", mixed), f"--run_dir={tmp_path / 'run'}"])
    counts = summary(tmp_path / "run")["counts"]
    assert counts["real"] == counts["synthetic"] == 16 and counts["generated"] > 0
    # Before the run the voter is asked what it makes of the validation rows: one at chance says nothing of made faces.
    assert ToyVoter.seen == counts["generated"] + len(cli.datamodule.val_table) and ToyTable.asked >= 16
    units = cli.datamodule.train_table.au[:, list(cli.datamodule.train_table.au_names).index("AU12")]
    np.testing.assert_allclose(units, 0.75)


def test_sampler_and_score_in_a_test_of_a_generator(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLERS, "toy", ToySampler)
    train.main(["fit", *base, f"--run_dir={tmp_path / 'judge'}"])
    generator = tiny_generator(label_space=list(NAMES), image_size=32)
    generator.save_trained(tmp_path / "generator")
    scored = {
        "model": {
            "class_path": "lightning_modules.ExpressionGenerator",
            "init_args": {
                **json.loads((tmp_path / "generator" / "config.json").read_text()),
                "sampling": {"scheduler": "toy", "num_steps": 3},
            },
        },
        "test": {
            "judge": str(tmp_path / "judge" / "checkpoints" / "last.ckpt"),
            "samples": 8,
            "batch_size": 8,
            "nearest_training": 0,
            "expressions": list(NAMES),
            "scores": ["tests.test_seams.ToyScore"],
        },
    }
    arguments = scored["model"]["init_args"]
    for name in [name for name in arguments if name.startswith("_") or name == "kind"]:
        del arguments[name]
    config = write_config(tmp_path / "scored.yaml", scored)
    weights = f"--ckpt_path={save_checkpoint(generator, tmp_path / 'generator.ckpt')}"
    train.main(["test", *base, config, weights, f"--run_dir={tmp_path / 'test'}"])
    metrics = summary(tmp_path / "test")["metrics"]
    assert ToySampler.steps == 3 and 0 <= metrics["test/score/brightness"] <= 1


def test_export_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORTERS, "toy", "tests.test_seams:ToyExporter")
    generator = tiny_generator()
    checkpoint = save_checkpoint(generator, tmp_path / "generator.ckpt")
    out = tmp_path / "out"
    assert export.main([str(checkpoint), "--what", "toy", "--out", str(out), "--dtype", "bfloat16"]) == 0
    assert ToyExporter(ExportSettings()).load(out) == f"{generator.weights_fingerprint()} bfloat16"
