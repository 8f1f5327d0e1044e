from __future__ import annotations

from pathlib import Path

import pytest

import train
from experiments.command_line.config_files import check_config_files, file_with, with_configs_first


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found no settings in it"),
        (b"- 1\n", "found a list"),
        (b"words\n", "found text"),
        (b"1: 2\n", "found settings without names"),
        (b"data: {batch_size: [}\n", "found no YAML ("),
        ("data: {batch_size: 4}  # café".encode("latin-1"), "found bytes that are no UTF-8 text (at byte 28)"),
        ("data: {batch_size: 4}".encode("utf-16"), "found bytes that are no UTF-8 text (at byte 0)"),
        (b"trainer:\n", "found nothing under 'trainer'"),
    ],
)
@pytest.mark.parametrize("way", ["--config={}", "--config {}", "-c {}"])
def test_what_is_no_config(content: bytes, said: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^config '.*mine\.yaml': ") as caught:
        check_config_files(["fit", *way.format(path).split()])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_a_config_or_the_parser_s_own_matter(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("data: {batch_size: 4}\nrun_dir:\n")
    check_config_files(["fit", f"--config={tmp_path / 'good.yaml'}", "--config=nowhere.yaml", "--config"])


def test_the_file_that_sets_a_key(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("data: {reader: {init_args: {count: 3}}}\nmodel: {learning_rate: 1}\n")
    two.write_text("data: {batch_size: 3}\n")
    args = ["fit", f"--config={one}", f"--config={two}", "--data.seed=3"]
    assert file_with("data.batch_size", args) == two
    assert file_with("data.reader.init_args.count", args) == file_with("data.reader.count", args) == one
    assert file_with("model.learning_rate", args) == one
    assert file_with("data.seed", args) is None and file_with("trainer.max_epochs", args) is None


def test_a_command_line_without_words_has_no_files() -> None:
    check_config_files([])
    assert file_with("data.seed", []) is None


def test_config_files_stand_first_in_their_order() -> None:
    words = ["fit", "--a=1", "--config", "one.yaml", "--b", "2", "-c=two.yaml", "--config=three.yaml", "--print_config"]
    first = ["fit", "--config", "one.yaml", "-c=two.yaml", "--config=three.yaml", "--a=1", "--b", "2", "--print_config"]
    assert with_configs_first(words) == first
    assert with_configs_first(words[1:]) == first[1:]
    assert with_configs_first(["fit", "--config"]) == ["fit", "--config"] and with_configs_first([]) == []


def test_an_option_wins_over_a_file_after_it(tiny_run: list[str], tmp_path: Path) -> None:
    (tmp_path / "later.yaml").write_text("data: {batch_size: 4}\nmodel: {init_args: {learning_rate: 0.5}}\n")
    options = ["--data.batch_size=8", "--model.learning_rate=0.25", f"--config={tmp_path / 'later.yaml'}"]
    settings = train.parse(["fit", *tiny_run, *options])
    assert settings.data.batch_size == 8 and settings.model.init_args.learning_rate == 0.25
