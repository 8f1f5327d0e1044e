from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_modules.trainer_access import command_name, data_of


def test_as_users_write_it() -> None:
    assert [command_name(stage) for stage in (TrainerFn.VALIDATING, "predict")] == ["validate", "predict"]


def test_the_data_module_of_a_trainer() -> None:
    given: Any = SimpleNamespace(datamodule="data")
    assert data_of(given) == "data"
    assert data_of(None) is None
    assert data_of(Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")) is None
