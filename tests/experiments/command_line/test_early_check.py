from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from experiments.command_line.early_check import _CLASSES, misspelt_key, settings_of
from experiments.command_line.train_command import make_parser


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.batchsize", "3"], "unrecognized arguments: --data.batchsize 3, did you mean data.batch_size?"),
        (["--data.batchsize=3"], "unrecognized arguments: --data.batchsize=3, did you mean data.batch_size?"),
        (["--trainer.max_epoch", "3"], "did you mean trainer.max_epochs?"),
        (["--guidance.stepsize=1", "--rundir", "x"], "--guidance.stepsize=1 --rundir x, did you mean guidance.step_si"),
        (["--wandb.grup", "x"], "did you mean wandb.group?"),
        (["--presett", "demo"], "did you mean preset?"),
    ],
)
def test_what_was_meant(words: list[str], said: str) -> None:
    assert said in str(misspelt_key(["fit", *words]))


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--data.batch_size", "3", "--trainer.max_epochs=1", "--run_dir", "x", "-c", "a.yaml"],
        ["fit", "--data.reader.init_args.cuont", "3"],  # depends on the reader
        ["fit", "--model.learningrate", "3"],  # and on the model
        ["fit", "--data.augmentation.fresh", "3"],  # moved
        ["fit", "--layout.refinements", "3"],
        ["fit", "--trainer.callbacks+=X", "--data", "folder", "--trainer.quite_another", "1"],
        ["fit", "--checkpoint.save_topk", "3"],  # a class that passes arguments on
        ["fit", "--data.batchsize", "3", "--help"],
        ["--data.batchsize", "3"],
        [],
    ],
)
def test_what_is_left_to_the_parser(words: list[str]) -> None:
    assert misspelt_key(words) is None


def test_the_sources_say_what_the_parser_takes() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    children: dict[str, Any] = {}
    for action in make_parser()._actions:
        children |= action.choices if isinstance(action.choices, dict) else {}
    for child in children.values():
        assert "--preset NAME" in child.epilog and "--data FOLDER" in child.format_help()
        for option in child._option_string_actions:
            group, _, rest = option.removeprefix("--").partition(".")
            found[group].add(rest.partition(".")[0].rstrip("+"))
    for group in _CLASSES:
        assert found[group] - {"", "help"} == set(settings_of(group)), group
    # No option of the run itself is taken for a misspelling.
    assert not [option for option in found if misspelt_key(["fit", f"--{option}"]) and option]
