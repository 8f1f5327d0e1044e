from __future__ import annotations

from lightning.pytorch.trainer.states import TrainerFn

from lightning_modules.command_name import command_name


def test_as_users_write_it() -> None:
    assert [command_name(stage) for stage in (TrainerFn.VALIDATING, "predict")] == ["validate", "predict"]
