"""W&B's agent writes null as None: read by the parser's types, wherever they allow it and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import train
from experiments.command_line.none_is_null import allows_null

PROJECT = Path(train.__file__).parent
BASE = ["fit", "--config=configs/data/drawn.yaml", "--config=configs/classifier/tiny.yaml"]


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


def test_what_an_agent_of_wandb_writes_is_what_a_sweep_writes() -> None:
    """A word per parameter as ``${args}`` makes it, null among them; sweep.py writes the word null."""
    from wandb.sdk.launch.sweeps import utils

    given: dict[str, Any] = {
        "data.synthetic_multiple": None,
        "data.label_table": None,
        "model.backbone_kwargs": {"stem_width": 8, "block_args": None},
        "wandb.group": None,
        "trainer.max_time": None,
    }
    words = utils.create_sweep_command_args({"args": {key: {"value": value} for key, value in given.items()}})["args"]
    assert "--data.label_table=None" in words
    found = train.parse([*BASE, *words])
    assert found.data.synthetic_multiple is None and found.data.label_table is None
    assert found.wandb.group is None and found.trainer.max_time is None
    assert found.model.init_args.backbone_kwargs == {"stem_width": 8, "block_args": None}


def test_a_path_that_holds_the_word_stays_a_path(tmp_path: Path) -> None:
    root = tmp_path / "None"
    words = ["--data.reader=ImageFolderReader", f"--data.reader.init_args.root={root}", "--wandb.project=None"]
    found = train.parse([*BASE, *words, f"--run_dir={root}"])
    assert found.data.reader.init_args.root == str(root) and found.run_dir == str(root)
    assert found.wandb.project == "None"  # a text that may not be null


def test_where_null_is_not_allowed_the_word_is_refused(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train.parse([*BASE, "--data.batch_size=None"])
    assert "data.batch_size" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("kind", "may"), [(str | None, True), (Any, True), (str, False), (dict[str, Any], False), (int | float, False)]
)
def test_types_that_allow_null(kind: Any, may: bool) -> None:
    assert allows_null(kind) is may
