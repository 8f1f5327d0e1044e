"""Fixtures of all tests: nothing leaks from one test into the next, nothing leaves the machine."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

PROJECT = Path(__file__).resolve().parent.parent

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["SYNFER_INDEX_DIR"] = ""  # no indexes of pictures but where a test asks for one


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests that need an accelerator where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says aloud that nothing was tried of a real SLURM, where none answers."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "NO SLURM" in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"tests/test_slurm.py: {len(skipped)} skipped, for no SLURM answers here", yellow=True
        )


@pytest.fixture(scope="session", autouse=True)
def _quiet_session() -> None:
    """One thread (tests run beside each other), no network, no W&B process unless a test asks for one."""
    torch.set_num_threads(1)
    os.environ.update(
        OMP_NUM_THREADS="1",
        WANDB_MODE="disabled",
        WANDB_SILENT="true",
        HF_HUB_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
    )
    for name in ("WANDB_API_KEY", "SYNFER_DEBUG", "SYNFER_RUN_DIR", "LOCAL_RANK", "RANK", "NODE_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def _logged_names_are_known() -> Iterator[None]:
    """Whatever one of our modules logs in any test, the table of directions says whether higher is better."""
    if "lightning" not in sys.modules:  # no test that was collected needs it
        yield
        return
    from lightning.pytorch import LightningModule

    from synfer.metrics.directions import is_known

    log = LightningModule.log

    def checked(self: LightningModule, name: str, *args: Any, **settings: Any) -> None:
        if type(self).__module__.startswith("lightning_modules."):
            assert is_known(name), f"'{name}' is logged and has no word in synfer/metrics/directions.py"
        log(self, name, *args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LightningModule, "log", checked)
        yield


@pytest.fixture(autouse=True)
def _hygiene() -> Iterator[None]:
    """Restores environment, random states, default dtype and deterministic mode, and ends a process group left open."""
    os.environ.pop("PL_GLOBAL_SEED", None)  # of a run that a module's fixture has made, maybe another module's
    environment = dict(os.environ)
    numpy_state, python_state, torch_state = np.random.get_state(), random.getstate(), torch.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    torch.set_rng_state(torch_state)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_default_dtype(torch.float32)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plainest folder in diffusers' layout, of random weights; tests copy it before they change anything."""
    from tests.fixtures.stable_diffusion_folder import save_stable_diffusion

    return save_stable_diffusion(tmp_path_factory.mktemp("stable-diffusion") / "plain")


@pytest.fixture(scope="session")
def tiny_run() -> list[str]:
    """Command line of the smallest fit: a narrow classifier on 112 drawn faces, two steps in one epoch, on the CPU."""
    configs = PROJECT / "configs"
    return [
        f"--config={configs / 'classifier' / 'tiny.yaml'}",
        f"--config={configs / 'data' / 'drawn.yaml'}",
        "--data.reader.init_args.count={train: 112, val: 28, test: 28}",
        "--data.batch_size=56",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.precision=32-true",
        "--trainer.max_epochs=1",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]
