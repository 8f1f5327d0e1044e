"""Where the runs of a sweep are on W&B."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.sweep.wandb_group import group_lines

SWEEP = Path("runs/a sweep")
GROUP = {"WANDB_RUN_GROUP": "a sweep", "WANDB_PROJECT": "faces", "WANDB_ENTITY": "lab"}


@pytest.fixture(autouse=True)
def _logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_BASE_URL", *GROUP):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)


def test_address_of_the_group() -> None:
    assert group_lines(GROUP, SWEEP) == ["W&B: https://wandb.ai/lab/faces/groups/a%20sweep"]


def test_own_server_project_and_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.lab.example/")
    environment = {"WANDB_ENTITY": "lab"}
    options = ["--wandb.project=other", "--wandb.group", "mine"]
    assert group_lines(environment, SWEEP, options) == ["W&B: https://wandb.lab.example/lab/other/groups/mine"]


def test_an_entity_that_only_the_server_knows() -> None:
    (line,) = group_lines({"WANDB_RUN_GROUP": "g"}, SWEEP)
    assert line == "W&B: group 'g' in the project 'synfer' of your default entity, https://wandb.ai"


@pytest.mark.parametrize("where", ["shell", "file", "no key"])
def test_offline(monkeypatch: pytest.MonkeyPatch, where: str, tmp_path: Path) -> None:
    if where == "shell":
        monkeypatch.setenv("WANDB_MODE", "offline")
    elif where == "no key":
        monkeypatch.delenv("WANDB_API_KEY")
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    environment = {**GROUP, **({"WANDB_MODE": "offline"} if where == "file" else {})}
    (line,) = group_lines(environment, SWEEP)
    assert line.endswith("wandb sync 'runs/a sweep'/*/wandb/offline-run-*")


def test_nothing_where_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert group_lines(GROUP, SWEEP, ["--trainer.logger=false"]) == []
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert group_lines(GROUP, SWEEP) == []
