"""What is short on a command line, written out: ``--preset NAME``, ``--data FOLDER``, ``--slurm``, included configs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.command_line.config_files import with_included_configs, with_shipped_configs
from experiments.command_line.presets import preset_path

_READER = "datamodules.readers.ImageFolderReader"


def written_out(args: Sequence[str]) -> list[str]:
    """Returns a command line without shorthands; what is written out already stays as it is.

    ``--preset`` becomes a ``--config`` at its place, so that the later of several files wins, and an option over all
    (C3).

    Args:
        args: command line without the program's name.

    Raises:
        ValueError: no such preset, or an ``include`` that is none.
        FileNotFoundError: ``--data`` names a folder that is not there.
    """
    return with_included_configs(with_shipped_configs(_with_slurm(_with_data_folder(_with_presets(args)))))


def _with_presets(args: Sequence[str]) -> list[str]:
    words: list[str] = []
    left = iter(args)
    for word in left:
        name, equals, value = word.partition("=")
        if name != "--preset":
            words.append(word)
            continue
        words.append(f"--config={preset_path(value if equals else next(left, ''))}")
    return words


def _with_slurm(args: Sequence[str]) -> list[str]:
    """Returns a command line with ``--slurm`` alone as the switch of its group; settings may stand behind it, too."""
    following = [*args, "-"][1:]
    switch = "--slurm.enabled=true"
    return [switch if w == "--slurm" and then.startswith("-") else w for w, then in zip(args, following, strict=True)]


def _with_data_folder(args: Sequence[str]) -> list[str]:
    """Returns a command line with a folder behind ``--data`` as the root of a reader.

    The reader is that of image folders, unless the command line itself names one. Both stand before all other options,
    so that ``--data.reader.init_args.image_size`` is one of that reader's wherever it stands.
    """
    words: list[str] = []
    folder = ""
    left = iter(args)
    for word in left:
        name, equals, value = word.partition("=")
        following = next(left, "") if name == "--data" and not equals else ""
        if name == "--data" and _is_folder(value or following):
            folder = value or following
        else:
            words += [word, *([following] if following else [])]
    if not folder:
        return words
    names = {word.partition("=")[0] for word in words}
    reader = [] if names & {"--data.reader", "--data.reader.class_path"} else [f"--data.reader={_READER}"]
    task = [words.pop(0)] if words and not words[0].startswith("-") else []
    given = [word for word in words if word.partition("=")[0] in ("--data.reader", "--data.reader.class_path")]
    root = f"--data.reader.init_args.root={folder}"
    # A root before the class that the command line names would be one of another class.
    return [*task, *reader, root, *words] if not given else [*task, *words, root]


def _is_folder(value: str) -> bool:
    """Whether what stands behind ``--data`` is a folder; settings and a YAML file of them are none.

    Raises:
        FileNotFoundError: it can be nothing else, and is not there.
    """
    path = Path(value)
    if path.is_dir():
        return True
    if not value or path.is_file() or path.suffix in (".yaml", ".yml", ".json") or set(value) & set("{}[]:"):
        return False
    raise FileNotFoundError(
        f"data: found no folder '{value}', expected one with train/<expression>/*.jpg (and val/, test/), or settings"
    )
