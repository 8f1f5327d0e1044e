"""A whole UNet that learns in shards on two ranks (gloo) learns what it learns on two ranks without."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from lightning_modules.generator import ExpressionGenerator
from lightning_modules.sharding_checks import check_sharding
from tests.fixtures.processes import run_to_end
from tests.fixtures.tiny_generator import save_base, tiny_generator
from tests.lightning_modules.test_generator import tiny_data
from tests.test_resume import PROJECT, config

STEPS = 3


def strategy_of(kind: str) -> Any:
    if kind == "ddp":
        return DDPStrategy(process_group_backend="gloo")
    return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False)


def one_rank(rank: int, folder: str, kind: str, port: int, resumes: bool, changes: dict[str, Any]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "x"}
    place = Path(folder)
    settings = {"trained": "all", "ema_decay": 0.9, "frozen_dtype": "bfloat16", **changes}
    generator = tiny_generator(base=str(place / "base"), **settings)
    name = f"{kind}-resumed" if resumes else kind
    every = ModelCheckpoint(place / name, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy_of(kind),
        max_steps=STEPS,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[every],
        default_root_dir=place,
    )
    before = place / kind / f"step={STEPS - 1}.ckpt"
    trainer.fit(generator, datamodule=tiny_data(), ckpt_path=before if resumes else None)
    parameters = [getattr(p, "_local_tensor", p) for p in generator.model.unet.parameters()]
    (place / f"{name}-{rank}.txt").write_text(str(sum(p.numel() for p in parameters)))
    torch.distributed.destroy_process_group()


def run(folder: Path, kind: str, resumes: bool = False, **changes: Any) -> tuple[dict[str, Any], list[int]]:
    """Returns the last checkpoint, and how many numbers of the UNet each rank held."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (str(folder), kind, port, resumes, changes)
    torch.multiprocessing.start_processes(one_rank, given, nprocs=2, start_method="fork")
    name = f"{kind}-resumed" if resumes else kind
    held = [int((folder / f"{name}-{rank}.txt").read_text()) for rank in range(2)]
    return torch.load(folder / name / f"step={STEPS}.ckpt", weights_only=True), held


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert found.keys() == expected.keys() != set()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **tolerance)


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_learn_the_same_in_shards(tmp_path: Path) -> None:
    save_base(tmp_path / "base")
    whole, held_whole = run(tmp_path, "ddp")
    sharded, held = run(tmp_path, "sharded")
    assert max(held) < 0.6 * held_whole[0] and sum(held) == held_whole[0]
    assert_close(sharded["state_dict"], whole["state_dict"], rtol=1e-3, atol=1e-5)
    assert_close(sharded["ema"]["average"], whole["ema"]["average"], rtol=1e-3, atol=1e-5)

    path = tmp_path / "sharded" / f"step={STEPS}.ckpt"  # what was learnt in shards is used without
    loaded = ExpressionGenerator.load_trained(path)
    average = {f"model.{name}": tensor for name, tensor in sharded["ema"]["average"].items()}
    assert_close({name: loaded.state_dict()[name] for name in average}, average, rtol=0, atol=0)

    resumed, _ = run(tmp_path, "sharded", resumes=True)
    assert_close(resumed["state_dict"], sharded["state_dict"], rtol=0, atol=0)
    assert_close(resumed["ema"]["average"], sharded["ema"]["average"], rtol=0, atol=0)

    path = path.rename(tmp_path / "initial.ckpt")
    unmoved, _ = run(tmp_path, "sharded", initial_weights=str(path), learning_rate=1e-12)
    assert_close({name: unmoved["state_dict"][name] for name in average}, average, rtol=1e-4, atol=1e-8)


@pytest.mark.ddp
@pytest.mark.slow
def test_shards_from_the_command_line_under_torchrun(tmp_path: Path) -> None:
    """As a user starts it on a host: strategy and the backend of its process group are settings."""
    whole = {"base": str(save_base(tmp_path / "base")), "trained": "all", "label_space": "basic7", "image_size": 16}
    whole |= {"ema_decay": 0.9, "grid_samples": 0, "execution": {"bf16_sampling": False}}
    trainer = {"max_steps": STEPS, "limit_val_batches": 0, "devices": 2}
    given = config(tmp_path, "generator", model={"init_args": whole}, trainer=trainer)
    shards = {"data_parallel_size": 2, "tensor_parallel_size": 1, "save_distributed_checkpoint": False}
    strategy = {
        "class_path": "lightning.pytorch.strategies.ModelParallelStrategy",
        "init_args": {**shards, "process_group_backend": "gloo"},
    }
    more = [f"--trainer.strategy={json.dumps(strategy)}"]
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", str(PROJECT / "train.py")]
    done = run_to_end([*words, "fit", f"--config={given}", f"--run_dir={tmp_path / 'run'}", *more], cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (record["status"], record["steps"], record["world_size"]) == ("finished", STEPS, 2)
    loaded = ExpressionGenerator.load_trained(tmp_path / "run" / "checkpoints" / "last.ckpt")
    before = UNet2DConditionModel.from_pretrained(tmp_path / "base", subfolder="unet").state_dict()
    after = {name.removeprefix("model.unet."): tensor for name, tensor in loaded.state_dict().items()}
    moved = [name for name, tensor in before.items() if not torch.equal(after[name], tensor)]
    assert len(moved) > 0.9 * len(before)  # whole tensors, of all layers


def trainer_with(strategy: Any, **changes: Any) -> Any:
    settings = {"limit_val_batches": 0, "world_size": 2, "state": SimpleNamespace(fn="fit"), "strategy": strategy}
    return SimpleNamespace(**{**settings, **changes})


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"base": None}, {}, r"model.base: found None, expected a base"),
        ({"trained": "lora"}, {}, r"model.trained: found lora, expected all or unet_only"),
        ({"optimizer": "muon"}, {}, r"model.optimizer: found muon, expected adamw with a sharded UNet"),
        ({"alignment": {"features": "x"}}, {}, r"model.alignment.features: found x, expected null with a sharded UNet"),
        ({"grid_samples": 4}, {}, r"model.grid_samples: found 4, expected 0 with a sharded UNet"),
        ({"execution": {"bf16_weights": True}}, {}, r"bf16_weights: found True, expected false with a sharded UNet"),
        ({}, {"limit_val_batches": 1.0}, r"trainer.limit_val_batches: found 1.0, expected 0 with a sharded UNet"),
        ({}, {"world_size": 4}, r"trainer.strategy.init_args.data_parallel_size: found 2, expected 4, the number of"),
    ],
)
def test_what_does_not_go_with_shards(settings: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    strategy = strategy_of("sharded")
    strategy._device_mesh = {"data_parallel": SimpleNamespace(size=lambda: 2)}
    fine: dict[str, Any] = {"base": "x", "trained": "all", "grid_samples": 0, "optimizer": "adamw"}
    fine |= {"alignment": {"features": None}, "execution": {"bf16_weights": False}}
    check_sharding(fine, trainer_with(strategy))
    check_sharding({**fine, **settings}, trainer_with(strategy_of("ddp"), **changes))
    with pytest.raises(ValueError, match=message):
        check_sharding({**fine, **settings}, trainer_with(strategy, **changes))


def test_shards_that_the_average_cannot_follow_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer.strategy: found FSDPStrategy, .* expected lightning.pytorch"):
        check_sharding({}, trainer_with(FSDPStrategy.__new__(FSDPStrategy)))
