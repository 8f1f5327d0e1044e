from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import train
from experiments.command_line.parser import with_interpolations


def told(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    """Parses a command line that is wrong; returns the one line about it."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        train.parse(["fit", *args])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("--data.batchsize=3", "--data.batchsize=3, did you mean data.batch_size?"),
        ("--batch_size=3", "--batch_size=3, did you mean data.batch_size?"),
        ("--model.init_args.learning_rat=3", "'learning_rat' is not accepted, did you mean learning_rate?"),
        ("--data.reader.init_args.cuont=3", "'cuont' is not accepted, did you mean count?"),
        (
            "--model.init_args.stem=smal",
            "Expected one of auto, small, half, native. Got value: smal, did you mean",
        ),
        ("--model=ExpressionClasifier", "model: found no class 'ExpressionClasifier', expected one of ours"),
        ("--data.batch_size=${oc.env:NOWHERE}", "data.batch_size: ${oc.env:NOWHERE} cannot be resolved: found no env"),
        ("--data.batch_size=${.nothing}", "data.batch_size: ${.nothing} cannot be resolved: found no key '.nothing'"),
    ],
)
def test_what_was_meant(wrong: str, said: str, tiny_run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert said in told(capsys, [*tiny_run, wrong])


def test_a_missing_config_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, [])
    assert line.startswith("error: fit needs data.reader and model: found none")
    assert "--config configs/data/drawn.yaml --config configs/classifier/tiny.yaml" in line
    for path in ("configs/data/drawn.yaml", "configs/classifier/tiny.yaml"):
        assert (Path(train.__file__).parent / path).is_file()


def test_a_wrong_key_of_a_file_names_the_file(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("data: {batch_size: 4}\n")
    for content, said in (
        ("data: {batchsize: 3}\n", "'data.batchsize', did you mean data.batch_size?"),
        ("model: {init_args: {learning_rat: 3}}\n", "did you mean learning_rate?"),
        ("data: {num_workers: many}\n", "data.num_workers: "),
    ):
        (tmp_path / "b.yaml").write_text(content)
        line = told(capsys, [*tiny_run, f"--config={tmp_path / 'a.yaml'}", f"--config={tmp_path / 'b.yaml'}"])
        assert said in line and line.endswith(f"(in config '{tmp_path / 'b.yaml'}')")


def test_what_a_reference_stands_for_is_used_and_not_recorded(
    tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hush-hush")
    monkeypatch.setenv("ROWS", "28")
    group = "--wandb.group=${oc.env:SECRET}"
    batch = "--data.batch_size=${oc.env:ROWS}"
    folder = tmp_path / "run"
    cli = train.main(["fit", *tiny_run, group, batch, f"--run_dir={folder}"])
    assert cli.datamodule.batch_size == 28
    assert cli.config_init.fit.wandb.group == "hush-hush"
    for file in ("config.yaml", "summary.json"):
        text = (folder / file).read_text()
        assert "hush-hush" not in text and "${oc.env:SECRET}" in text
    again = train.parse(["fit", f"--config={folder / 'config.yaml'}"])
    assert again.data.batch_size == 28 and again.wandb.group == "hush-hush"


def test_references_come_back_where_they_were() -> None:
    config = yaml.safe_dump({"a": {"b": 1, "c": [1, 2]}, "run_dir": None})
    written = {"a.b": "${x}", "a.c": ["${y}", 2], "run_dir": "${z}", "gone.d": "${w}"}
    assert yaml.safe_load(with_interpolations(config, written)) == {
        "a": {"b": "${x}", "c": ["${y}", 2]},
        "run_dir": None,
    }
    assert with_interpolations(config, {}) == config
