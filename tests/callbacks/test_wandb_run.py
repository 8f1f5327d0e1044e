"""W&B: offline unless logged in, and never a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from callbacks.wandb_run import WandbRun, choose_mode


@pytest.fixture(autouse=True)
def _logged_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)


def test_offline_unless_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert choose_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert choose_mode() == "offline"  # W&B would ask for a key
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password not-a-key\n")
    assert choose_mode() == "online"


@pytest.mark.parametrize(("asked", "mode"), [("disabled", "disabled"), ("dryrun", "offline"), ("offline", "offline")])
def test_what_the_user_asks_for_wins(monkeypatch: pytest.MonkeyPatch, asked: str, mode: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "not-a-key")
    assert choose_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", asked)
    assert choose_mode() == mode


def test_server_out_of_reach_means_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import wandb

    modes = []

    class Run:
        id = "abc"

    def init(**settings: object) -> Run:
        modes.append(settings["mode"])
        if settings["mode"] == "online":
            raise wandb.errors.CommError("no route")
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", "not-a-key")
    logger = WandbRun(tmp_path / "group" / "run")
    with pytest.warns(UserWarning, match="kept offline"):
        assert logger.experiment.id == "abc"
    assert modes == ["online", "offline"]


def test_name_and_group_come_from_the_folder(tmp_path: Path) -> None:
    logger = WandbRun(tmp_path / "sweep" / "run-1", run_id="abc")
    assert logger._wandb_init["name"] == "run-1" and logger._wandb_init["group"] == "sweep"
    assert logger.version == "abc"
