"""The notebook of the first hour: every cell runs, in order, at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.pages import PROJECT

NOTEBOOK = PROJECT / "docs" / "first_hour.ipynb"
SIZES = "EPOCHS, STEPS, FACES = 8, 75, 4"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_cells_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = code_cells()
    assert sum(SIZES in cell for cell in cells) == 1
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in cells:
        small = cell.replace(SIZES, "EPOCHS, STEPS, FACES = 1, 2, 1").replace(
            '"--trainer.enable_progress_bar=false"',
            '"--trainer.enable_progress_bar=false", "--data.eval_batch_size=64", "--trainer.limit_val_batches=1"',
        )
        exec(compile(small, str(NOTEBOOK), "exec"), names)
    told = capsys.readouterr().out
    assert told.count("faces") >= 2 and "'happy':" in told
    assert {"made.png", "happy.png", "report", "runs"} <= {path.name for path in tmp_path.iterdir()}


def test_it_is_kept_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
