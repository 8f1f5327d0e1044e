"""configs/distillation: a generator, its guidance in one pass, then few steps, each from its file."""

from __future__ import annotations

import json
from pathlib import Path

import train
from lightning_modules.generator import ExpressionGenerator
from tests.fixtures.one_cpu import ONE_CPU

CONFIGS = Path(train.__file__).parent / "configs"
FACES = [
    f"--config={CONFIGS / 'data/drawn.yaml'}",
    "--data.reader.init_args.count={train: 28, val: 14, test: 14}",
    f"--config={CONFIGS / 'generator/tiny.yaml'}",
]
QUIET = [
    *ONE_CPU,
    "--trainer.logger=false",
    "--data.batch_size=14",
    "--model.execution.bf16_sampling=false",
]
TWO_STEPS = ["--trainer.max_steps=2", "--model.grid_samples=0"]


def test_from_a_generator_to_faces_of_four_passes(tmp_path: Path) -> None:
    def distil(teacher: str, folder: str, *files: str) -> None:
        configs = [f"--config={CONFIGS / 'distillation' / name}" for name in files]
        run = [f"--model.teacher={tmp_path / teacher}", f"--run_dir={tmp_path / folder}"]
        train.main(["fit", *FACES, *configs, *QUIET, *TWO_STEPS, *run])

    train.main(["fit", *FACES, *QUIET, *TWO_STEPS, f"--run_dir={tmp_path / 'teacher'}"])
    distil("teacher", "guidance", "guidance.yaml")
    distil("guidance", "few", "guidance.yaml", "few_steps.yaml")
    few = ExpressionGenerator.load_trained(tmp_path / "few")
    assert few.synthesiser.distilled == (6.0, 4) and few.sampling.num_steps == 4

    made = ["--config", str(CONFIGS / "synthesise/plain.yaml"), "--data.synthesis_count=14"]
    files = [f"--config={CONFIGS / 'distillation' / name}" for name in ("guidance.yaml", "few_steps.yaml")]
    ckpt = f"--ckpt_path={tmp_path / 'few/checkpoints/last.ckpt'}"
    train.main(["predict", *FACES, *files, *QUIET, *made, ckpt, f"--run_dir={tmp_path / 'set'}"])
    assert json.loads((tmp_path / "set/summary.json").read_text())["status"] == "finished"
