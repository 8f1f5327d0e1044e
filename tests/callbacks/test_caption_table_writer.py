from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from lightning.pytorch import LightningModule, Trainer

import train
from callbacks.caption_table_writer import CaptionTableWriter
from datamodules.captions.caption_table import read_caption_table
from datamodules.captions.settings import CaptionSettings
from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers import DrawnReader
from lightning_modules.captioner import Captioner
from synfer.faces.expression_words import names_expression
from tests.fixtures.processes import run_to_end
from tests.fixtures.tiny_captioner import save_llava

CONFIGS = Path(train.__file__).parent / "configs"
QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
DRAWN = [f"--config={CONFIGS / 'data/drawn.yaml'}", "--data.reader.init_args.count={train: 28, val: 7, test: 7}"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("model"))


def write(model: Path, table: Path, run_dir: Path, *more: str) -> Any:
    callback = "callbacks.caption_table_writer.CaptionTableWriter"
    writer = f"--trainer.callbacks=[{{class_path: {callback}, init_args: {{path: {table}, every: 1}}}}]"
    asked = [f"--model.model={model}", "--model.prompt=describe the face", "--model.max_new_tokens=4"]
    small = ["--data.eval_batch_size=8", "--data.image_size=32", "--trainer.accelerator=cpu"]
    config = f"--config={CONFIGS / 'captions/write.yaml'}"
    return train.main(["predict", *DRAWN, config, *asked, *small, *QUIET, writer, *more, f"--run_dir={run_dir}"])


def test_captions_are_written_and_joined(model: Path, tmp_path: Path) -> None:
    cli = write(model, tmp_path / "c.parquet", tmp_path / "run")
    captions = read_caption_table(tmp_path / "c.parquet", with_empty=True)
    assert list(captions) == cli.datamodule.train_table.sample_id.tolist() and len(set(captions.values())) > 3
    assert [path.name for path in tmp_path.iterdir() if "parquet" in path.name] == ["c.parquet"]
    counts = json.loads((tmp_path / "run" / "summary.json").read_text())["counts"]
    assert counts["captions"] == 28 and counts["empty_captions"] == sum(not text for text in captions.values())

    def data(path: Path) -> ExpressionDataModule:
        reader = DrawnReader({"train": 28, "val": 7, "test": 7}, image_size=48, label_space="basic7")
        return ExpressionDataModule(reader, captions=CaptionSettings(mention_expression=False, path=str(path)))

    write(model, tmp_path / "v.csv", tmp_path / "run2", "--data.predict_split=val")
    with pytest.raises(ValueError, match=r"data\.captions\.path '.*': found captions of none of the 28 train rows"):
        data(tmp_path / "v.csv").setup("fit")
    joined = data(tmp_path / "c.parquet")
    joined.setup("fit")
    assert joined.train_table is not None and joined.train_table.caption is not None
    assert not any(map(names_expression, joined.train_table.caption))


def test_a_stopped_run_goes_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    write(model, tmp_path / "whole.parquet", tmp_path / "whole")
    table = tmp_path / "c.parquet"
    with pytest.raises(SystemExit):
        write(model, table, tmp_path / "first", "--trainer.limit_predict_batches=2")
    assert "(12 of 28 rows), expected all" in capsys.readouterr().err
    assert not table.exists()
    described: list[int] = []
    describe = Captioner.describe

    def counted(self: Captioner, image: Any) -> list[str]:
        described.append(len(image))
        return describe(self, image)

    monkeypatch.setattr(Captioner, "describe", counted)
    write(model, table, tmp_path / "second")
    assert sum(described) == 12
    assert read_caption_table(table, True) == read_caption_table(tmp_path / "whole.parquet", True)
    write(model, table, tmp_path / "third")
    assert sum(described) == 12
    with pytest.raises(SystemExit):
        write(model, table, tmp_path / "other", "--model.max_new_tokens=3")
    assert "found captions with max_new_tokens=4, expected max_new_tokens=3 to go on" in capsys.readouterr().err
    assert pq.read_table(table).num_rows == 28


def test_no_table_of_somebody_else_is_overwritten(model: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "c.csv").write_text("sample_id,caption\na,b\n")
    with pytest.raises(SystemExit):
        write(model, tmp_path / "c.csv", tmp_path / "run")
    assert "found captions with nothing of what wrote them, expected model=" in capsys.readouterr().err
    assert (tmp_path / "c.csv").read_text() == "sample_id,caption\na,b\n"


def test_another_model_has_nothing_to_write() -> None:
    with pytest.raises(ValueError, match=r"found the model LightningModule, expected lightning_modules\.cap"):
        CaptionTableWriter().setup(Trainer(accelerator="cpu", logger=False), LightningModule(), "predict")
    with pytest.raises(ValueError, match=r"CaptionTableWriter\.every: found 0"):
        CaptionTableWriter(every=0)


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_write_the_same_table_as_one(model: Path, tmp_path: Path, capsys: Any) -> None:
    write(model, tmp_path / "one.parquet", tmp_path / "one")
    table = tmp_path / "two.parquet"
    with pytest.raises(SystemExit):  # begun on one rank
        write(model, table, tmp_path / "begun", "--trainer.limit_predict_batches=1")
    assert "(20 of 28 rows)" in capsys.readouterr().err
    command = [sys.executable, str(CONFIGS.parent / "train.py"), "predict"]
    command += [
        f"--config={tmp_path / 'begun' / 'config.yaml'}",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--data.eval_batch_size=5",
    ]
    done = run_to_end(
        [*command, "--trainer.limit_predict_batches=1.0", f"--run_dir={tmp_path / 'two'}"],
        cwd=CONFIGS.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (read_caption_table(path, with_empty=True) for path in (tmp_path / "one.parquet", table))
    assert list(one.items()) == list(two.items())
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["counts"]["captions"] == 20
