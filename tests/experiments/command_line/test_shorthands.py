from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import train
from experiments.command_line.config_files import included, without_include
from experiments.command_line.presets import presets, summary_of
from experiments.command_line.shorthands import written_out

PROJECT = Path(train.__file__).parent


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's with a preset ``mine`` that includes two files, and faces."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "presets").mkdir(parents=True)
    (tmp_path / "a.yaml").write_text("data: {batch_size: 1, num_workers: 1, eval_batch_size: 1}\n")
    (tmp_path / "configs" / "presets" / "b.yaml").write_text("data: {batch_size: 2, num_workers: 2}\n")
    mine = "# Mine. And more.\ninclude: [a.yaml, b.yaml]  # one as behind --config, one beside\ndata: {batch_size: 3}\n"
    (tmp_path / "configs" / "presets" / "mine.yaml").write_text(mine)
    (tmp_path / "faces" / "train" / "happy").mkdir(parents=True)
    (tmp_path / "faces" / "val" / "sad").mkdir(parents=True)
    return tmp_path


def test_a_preset_is_its_files_in_order_and_written_out_once(own: Path) -> None:
    words = written_out(["fit", "--config", "a.yaml", "--preset", "mine", "--seed_everything", "2"])
    assert words == [
        *("fit", "--config", "a.yaml"),  # named before: not read again
        *("--config=configs/presets/b.yaml", "--config=configs/presets/mine.yaml", "--seed_everything", "2"),
    ]
    assert written_out(words) == words  # every rank runs this again
    assert written_out(["fit", "--preset=mine"])[1] == "--config=a.yaml"


def test_the_precedence_holds_with_presets(own: Path, tiny_run: list[str]) -> None:
    """C3: command line > later config > earlier config > defaults."""
    tiny = [word for word in tiny_run if word.startswith("--config") or "count" in word]
    (own / "late.yaml").write_text("data: {num_workers: 7}\n")

    def parsed(*words: str) -> list[int]:
        data = train.parse(["fit", *tiny, *words]).data
        return [data.batch_size, data.num_workers, data.eval_batch_size]

    assert parsed("--preset", "mine") == [3, 2, 1]
    assert parsed("--preset", "mine", "--config", "late.yaml") == [3, 7, 1]
    assert parsed("--config", "late.yaml", "--preset", "mine") == [3, 2, 1]
    assert parsed("--data.batch_size", "9", "--preset", "mine") == [9, 2, 1]


def test_a_folder_behind_data_is_the_root_of_a_reader(own: Path, tiny_run: list[str]) -> None:
    assert written_out(["fit", "--data.batch_size=3", "--data", "faces"]) == [
        *("fit", "--data.reader=datamodules.readers.ImageFolderReader", "--data.reader.init_args.root=faces"),
        "--data.batch_size=3",
    ]
    named = ["fit", "--data.reader", "datamodules.readers.FER2013Reader"]
    assert written_out([*named, "--data=faces"]) == [*named, "--data.reader.init_args.root=faces"]
    for settings in ("{batch_size: 3}", "a.yaml", "missing.yaml"):
        assert written_out(["fit", "--data", settings]) == ["fit", "--data", settings]

    configs = [word for word in tiny_run if word.startswith("--config")]  # one of them names another reader
    data = train.parse(["fit", *configs, "--data", "faces", "--data.reader.init_args.image_size=32"]).data
    assert data.reader.class_path == "datamodules.readers.ImageFolderReader"
    assert data.reader.init_args.root == "faces" and data.reader.init_args.image_size == 32
    assert train.parse(["fit", *configs, "--data", "{batch_size: 5}"]).data.batch_size == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "mixd"], "found no preset 'mixd', expected one of classifier, demo, "),
        (["--preset", "mixd"], "did you mean mixed?"),
        (["--preset"], "found no name behind --preset, expected one of "),
        (["--data", "facess/"], "data: found no folder 'facess/', expected one with train/<expression>/*.jpg"),
        (["--config", "torn.yaml"], "config 'torn.yaml': found no file 'nowhere.yaml', which it includes"),
        (["--config", "odd.yaml"], "config 'odd.yaml': found 3 under 'include', expected a list of config files"),
    ],
)
def test_refusals(words: list[str], said: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "torn.yaml").write_text("include: [nowhere.yaml]\n")
    (own / "odd.yaml").write_text("include: 3\n")
    with pytest.raises(SystemExit) as stopped:
        train.main(["fit", *words])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (own / "runs").exists()


def test_files_that_include_each_other_are_read_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"include: ['{two}']\nrun_dir: x\n")
    two.write_text(f"include: ['{one}']\n")
    assert included(one) == [two]
    assert written_out(["fit", f"--config={one}"]) == ["fit", f"--config={two}", f"--config={one}"]
    assert yaml.safe_load(without_include(one.read_text())) == {"run_dir": "x"}
    assert without_include("data: {x: 1}  # include: no\n") == "data: {x: 1}  # include: no\n"


def test_every_preset_says_what_it_is(own: Path) -> None:
    assert summary_of(presets()["mine"]) == "Mine"
    for path in sorted((PROJECT / "configs" / "presets").glob("*.yaml")):
        assert 20 < len(summary_of(path)) <= 100, path
