"""Scores by attribute: what is counted, over ranks too, and that a test of a run has them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import compare
import train
from callbacks import attribute_scores as scores_module
from callbacks.attribute_scores import AttributeScores, attribute_scores
from tests.configs.test_configs import CONFIGS, TINY
from tests.fixtures.published_sets import few_pictures, raf_db

ONE_STEP = ["--trainer.max_steps=1", "--trainer.accelerator=cpu", "--trainer.devices=1", "--data.num_workers=0"]


def evaluate(tables: dict[str, Any], right: list[bool], ids: list[str], fn: str = "test") -> dict[str, float]:
    """Returns what is logged when rows of these ids are predicted rightly or not; the class is always 0."""
    data = SimpleNamespace(**tables)
    trainer: Any = SimpleNamespace(datamodule=data, state=SimpleNamespace(fn=fn))
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(log=lambda name, value, **_: logged.__setitem__(name, value))
    callback = AttributeScores()
    name = "test" if fn == "test" else "validation"
    getattr(callback, f"on_{name}_epoch_start")(trainer, module)
    for start in range(0, len(ids), 3):
        part = slice(start, start + 3)
        predicted = torch.tensor([[1.0, 0.0] if one else [0.0, 1.0] for one in right[part]])
        batch = {"label": torch.zeros(len(ids[part]), dtype=torch.int64), "sample_id": ids[part]}
        getattr(callback, f"on_{name}_batch_end")(trainer, module, predicted, batch, 0)
    getattr(callback, f"on_{name}_epoch_end")(trainer, module)
    return logged


def a_table(**attributes: list[str]) -> Any:
    n = len(next(iter(attributes.values())))
    values = {name: np.array(values) for name, values in attributes.items()}
    return SimpleNamespace(sample_id=np.array([f"r{n}" for n in range(n)]), attributes=values)


def test_each_value_is_scored_by_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_module, "FEWEST", 2)
    table = a_table(gender=["f", "f", "m", "m", "m", ""], age=["old", "old", "old", "old", "old", "young"])
    ids = ["r5", "r4", "r3", "r2", "r1", "r0"]  # rows come in an order of their own
    logged = evaluate({"test_table": table}, [True, False, True, True, True, True], ids)
    assert logged == pytest.approx(
        {
            "test/attribute_accuracy/gender/f": 1.0,
            "test/attribute_accuracy/gender/m": 2 / 3,
            "test/attribute_rows/gender/f": 2.0,
            "test/attribute_rows/gender/m": 3.0,
            "test/attribute_gap/gender": 1 / 3,
            "test/attribute_accuracy/age/old": 0.8,
            "test/attribute_accuracy/age/young": 1.0,
            "test/attribute_rows/age/old": 5.0,
            "test/attribute_rows/age/young": 1.0,
        }
    )  # one young face makes no gap


def test_nothing_is_logged_without_attributes_nor_in_a_fit() -> None:
    table = a_table(gender=["f", "m"])
    assert not evaluate({"test_table": SimpleNamespace(attributes={})}, [True], ["r0"])
    assert not evaluate({"val_table": table}, [True, True], ["r0", "r1"], fn="fit")
    assert "val/attribute_accuracy/gender/f" in evaluate({"val_table": table}, [True, True], ["r0", "r1"], "validate")


def test_ranks_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Counter({("gender", "f", False): 3, ("gender", "x", True): 1})
    monkeypatch.setattr(scores_module, "states_of_ranks", lambda mine: [mine, other])
    logged = evaluate({"test_table": a_table(gender=["f", "m"])}, [True, True], ["r0", "r1"])
    assert logged["test/attribute_accuracy/gender/f"] == 0.25 and logged["test/attribute_rows/gender/f"] == 4
    assert logged["test/attribute_accuracy/gender/x"] == 1.0


def test_scores_are_worth_the_same_in_any_order() -> None:
    counts = {("a", "x", True): 40, ("a", "x", False): 10, ("a", "y", True): 20, ("a", "y", False): 20}
    assert attribute_scores(Counter(counts))["attribute_gap/a"] == pytest.approx(0.3)
    assert attribute_scores(Counter(dict(reversed(counts.items())))) == attribute_scores(Counter(counts))


@few_pictures
def test_a_test_of_a_run_tells_them_and_a_comparison_shows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = raf_db(tmp_path / "set")
    config = [f"--config={CONFIGS / 'data/raf_db.yaml'}", f"--data.reader.init_args.reader.init_args.root={root}"]
    args = [*TINY, "--model.init_args.label_space=basic7", *config, *ONE_STEP]
    run = tmp_path / "runs" / "a"
    train.main(["fit", *args, f"--run_dir={run}"])
    train.main(["test", *args, f"--run_dir={run}", f"--ckpt_path={run}"])
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    rows = {name: value for name, value in metrics.items() if name.startswith("test/attribute_rows/gender/")}
    assert rows == {"test/attribute_rows/gender/unsure": 7.0}
    assert sum(v for n, v in metrics.items() if n.startswith("test/attribute_rows/race/")) == 7
    weighted = sum(
        metrics[f"test/attribute_accuracy/race/{name}"] * metrics[f"test/attribute_rows/race/{name}"]
        for name in ("Caucasian", "African-American")
    )
    assert weighted / 7 == pytest.approx(metrics["test/accuracy"], abs=1e-6)
    capsys.readouterr()
    assert compare.main([str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 0
    assert "test accuracy in %, by attribute" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Test accuracy in %, by attribute" in page and "African-American (3 rows)" in page
