"""What ``synfer`` can do: the table of its commands, each imported when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SYNFER = "synfer"

TRAINING = ("fit", "validate", "test", "predict")
"""Commands of one parser, that of ``train.py``, which is given their name as its first word."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        target: "module:function"; it takes the words after the command, ``None`` = those of ``sys.argv``.
        summary: what it does, in the list of commands.
    """

    target: str
    summary: str


COMMANDS: dict[str, Command] = {
    "fit": Command("experiments.command_line.train_program:main", "train a classifier, a generator, an annotator, …"),
    "validate": Command("experiments.command_line.train_program:main", "score a checkpoint on the validation split"),
    "test": Command("experiments.command_line.train_program:main", "score a checkpoint on the test split"),
    "predict": Command("experiments.command_line.train_program:main", "write a set of faces, or labels of a data set"),
    "label": Command("experiments.label.label_command:main", "name the expressions on pictures: files, folders, video"),
    "sample": Command("experiments.sample.sample_command:main", "make single faces, of an expression or action units"),
    "preview": Command("experiments.preview.preview_command:main", "look at a data set: pictures of rows, and numbers"),
    "score": Command("experiments.score.score_command:main", "what sets of made faces are worth beside real ones"),
    "sweep": Command("experiments.sweep.sweep_command:main", "many settings and seeds from one file, here or on SLURM"),
    "compare": Command("experiments.compare.compare_command:main", "table, intervals and report of finished runs"),
    "export": Command("experiments.export.export_command:main", "a trained model in the formats of other libraries"),
    "blend": Command("experiments.blend.blend_command:main", "one classifier from the weights of several runs"),
    "set": Command("experiments.set.set_command:main", "synthetic sets: merge, split, enlarge, export, push"),
    "serve": Command("experiments.serve.serve_command:main", "a page in the browser, to make and label faces"),
    "presets": Command("experiments.command_line.presets_command:main", "list the presets; presets NAME prints one"),
    "completion": Command(
        "experiments.command_line.completion_command:main", "what bash or zsh need to complete words"
    ),
}
"""Name → command, in the order of the help. One whose module is not there is left out of it, and refused."""


def available() -> dict[str, Command]:
    """Returns the commands whose modules are there."""
    return {name: command for name, command in COMMANDS.items() if _is_there(command.target.partition(":")[0])}


def called_as(name: str, program: str) -> str:
    """Returns how a program calls itself in its help: "synfer export" or "export.py", as the user did.

    Args:
        name: of the command: "export".
        program: path of what was started, ``sys.argv[0]``.
    """
    return f"{SYNFER} {name}" if is_synfer(program) else f"{name}.py"


def is_synfer(program: str) -> bool:
    """Whether a path is that of ``synfer`` as it was installed, or of what ``python -m synfer`` runs."""
    path = Path(program)
    return path.stem == SYNFER or (path.name == "__main__.py" and path.parent.name == SYNFER)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the folder that it lies in
        return False
