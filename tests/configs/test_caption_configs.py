"""Each file of configs/captions/ runs, on drawn faces with captions."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import train
from datamodules.captions.caption_table import read_caption_table
from datamodules.loading.stream_sampler import StreamSampler
from tests.fixtures.caption_sets import drawn_pairs, write_folder, write_parquet
from tests.fixtures.tiny_captioner import save_blip

CONFIGS = Path(train.__file__).parent / "configs"
HERE = sorted(path.name for path in (CONFIGS / "captions").glob("*.yaml"))
QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SMALL = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.batch_size=8", "--model.grid_samples=0", *QUIET]


def config(name: str) -> str:
    return f"--config={CONFIGS / name}"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    some = [{**pair, "caption": "a photo of a smiling person"} for pair in drawn_pairs(40)]
    write_parquet(folder / "data" / "part-0.parquet", some)
    return folder


def test_every_file_is_tested_here() -> None:
    assert HERE and all(f"captions/{name}" in Path(__file__).read_text() for name in HERE)


def test_a_generator_learns_from_unlabelled_captions(pairs: Path, tmp_path: Path) -> None:
    files = [config("captions/image_captions.yaml"), config("generator/tiny.yaml")]
    given = [f"--data.reader.init_args.path={pairs}", "--data.reader.init_args.held_out={val: 0.2}"]
    policy = ["--data.captions.mention_expression=false", "--model.sampling.mention_expression=false"]
    cli = train.main(["fit", *files, *given, *policy, *SMALL, f"--run_dir={tmp_path}"])
    table = cli.datamodule.train_table
    assert set(table.caption) == {"a photo of a person"} and (table.label == -1).all()
    assert cli.trainer.global_step == -(-len(table) // 8)


def test_what_the_small_generator_does_not_know_is_said(pairs: Path, tmp_path: Path) -> None:
    files = [config("captions/image_captions.yaml"), config("generator/tiny.yaml")]
    given = [f"--data.reader.init_args.path={pairs}", "--data.reader.init_args.held_out={val: 0.2}"]
    with pytest.warns(UserWarning, match=r"captions have words that the small generator does not know \('smi"):
        train.main(["fit", *files, *given, *SMALL, "--trainer.fast_dev_run=true", f"--run_dir={tmp_path}"])


def test_a_classifier_refuses_unlabelled_rows(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [config("captions/image_captions.yaml"), config("classifier/tiny.yaml")]
    given = [f"--data.reader.init_args.path={pairs}", "--data.reader.init_args.held_out={val: 0.2}"]
    small = [setting for setting in SMALL if "grid" not in setting]
    with pytest.raises(SystemExit) as ended:
        train.main(["fit", *files, *given, *small, f"--run_dir={tmp_path / 'a'}"])
    said = capsys.readouterr().err
    assert ended.value.code and "rows without an expression, the first of them '00" in said
    assert "expected an expression of each for ExpressionClassifier" in said
    named = ["--data.reader.init_args.label_column=label", f"--run_dir={tmp_path / 'b'}"]
    cli = train.main(["fit", *files, *given, *small, *named])
    assert cli.trainer.global_step > 0


def test_a_stream(pairs: Path, tmp_path: Path) -> None:
    assert yaml.safe_load((CONFIGS / "captions/stream.yaml").read_text())["data"]["reader"]["init_args"]["streaming"]
    files = [config("captions/image_captions.yaml"), config("captions/stream.yaml"), config("generator/tiny.yaml")]
    given = [
        f"--data.reader.init_args.path={pairs}",
        "--data.num_workers=0",
        "--data.captions.mention_expression=false",
        "--model.sampling.mention_expression=false",
    ]
    cli = train.main(["fit", *files, *given, *SMALL, f"--run_dir={tmp_path}"])
    assert isinstance(cli.datamodule.training_sampler(), StreamSampler)
    assert cli.datamodule.counts["real"] == cli.trainer.global_step * 8 >= len(cli.datamodule.train_table)


def test_captions_are_written(tmp_path: Path) -> None:
    write_folder(tmp_path / "faces" / "train" / "happy", drawn_pairs(3))
    write_folder(tmp_path / "faces" / "train" / "sad", drawn_pairs(2))
    files = [config("data/image_folder.yaml"), config("captions/write.yaml")]
    given = [f"--data.reader.init_args.root={tmp_path / 'faces'}", f"--model.model={save_blip(tmp_path / 'model')}"]
    small = ["--trainer.accelerator=cpu", "--data.num_workers=0", "--model.max_new_tokens=4", *QUIET]
    train.main(["predict", *files, *given, *small, f"--run_dir={tmp_path / 'run'}"])
    captions = read_caption_table(tmp_path / "run" / "captions.parquet", with_empty=True)
    assert len(captions) == 5 and "train/happy/0000.png" in captions
