"""Finds the command lines of a page, as a shell would run them.

The bash blocks of a page are given, in order, to a bash that can run nothing: its search path is empty, it is
restricted (no file is written), and whatever it is asked to run is written down instead. So loops, variables, quotes
and lines that go on are expanded by the shell that a reader would use. A variable that nothing has set is an error.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import lines_of, name_of, spans_of

_WRITE_DOWN = r"""command_not_found_handle() { printf '%s\0' "${BASH_LINENO[0]}" "$#" "$@"; }"""
_NOT_RUN = "".join(f"; {builtin}() {{ :; }}" for builtin in ("source", "cd", "echo", "kill"))
_PROGRAMS = ("python", "synfer", "make", "pytest", "torchrun", "wandb", "pip")


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes:
        page: the page's path in the project.
        line: of the page on which it begins.
        words: as the shell would hand them to the program, whose name comes first.
    """

    page: str
    line: int
    words: tuple[str, ...]

    @property
    def place(self) -> str:
        """Page and line, as an editor opens them."""
        return f"{self.page}:{self.line}"


class PageError(ValueError):
    """What the shell says of a block that it cannot read; it names page and line."""


def documented_commands(page: Path) -> list[Command]:
    """Returns the commands of a page's bash blocks and of the code spans in its prose, loops expanded.

    Placeholders such as ``<name>`` become ``NAME``. Words that begin with ``--`` in place of a program are options to
    be added to the command before them.

    Raises:
        PageError: a block is no bash, or uses a variable that the page has not set.
    """
    return _of_blocks(page) + _of_spans(page)


def commented_commands(config: Path) -> list[Command]:
    """Returns the commands in the comments of a config file: indented by three blanks, by five where they go on."""
    found: list[tuple[int, str]] = []
    for number, line in enumerate(config.read_text(encoding="utf-8").splitlines(), start=1):
        begun, goes_on = re.match(r"# {3}((?:python|synfer|wandb) .*)", line), re.match(r"# {5,}(--.*)", line)
        if begun is not None:
            found.append((number, begun[1]))
        elif goes_on is not None and found:
            found[-1] = (found[-1][0], f"{found[-1][1].removesuffix(chr(92))} {goes_on[1]}")
    commands = [(number, re.split(r" {2,}\(|, then ", text)[0]) for number, text in found]
    whole = [(number, text) for number, text in commands if "…" not in text]
    return [Command(name_of(config), number, tuple(shlex.split(_named(text)))) for number, text in whole]


def _of_blocks(page: Path) -> list[Command]:
    lines = lines_of(page)
    script = [_named(line.text) if line.language in ("bash", "sh") else "" for line in lines]
    if not any(script):
        return []
    script[0] = _WRITE_DOWN + _NOT_RUN  # in place of the heading, so that line numbers are the page's
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-ruc", "\n".join(script), name_of(page)],
        env={"PATH": "/nowhere"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode or done.stderr:
        raise PageError(done.stderr.strip() or f"{name_of(page)}: bash ends with {done.returncode}")
    fields, commands = done.stdout.split("\0")[:-1], []
    while fields:
        number, count = int(fields[0]), int(fields[1])
        commands.append(Command(name_of(page), number, tuple(fields[2 : 2 + count])))
        fields = fields[2 + count :]
    last: Command | None = None
    for place, command in enumerate(commands):
        if command.words[0].startswith("--") and last is not None:
            commands[place] = Command(command.page, command.line, last.words + command.words)
        else:
            last = command
    return commands


def _of_spans(page: Path) -> list[Command]:
    found = []
    for number, text in spans_of(page):
        words = tuple(shlex.split(_named(text))) if text.split(" ")[0] in _PROGRAMS else ()
        of_program = len(words) == 2 and (words[0] == "synfer" or (words[1].endswith(".py") and "/" not in words[1]))
        named_alone = len(words) < 2 or of_program
        if not named_alone and "…" not in text and "$" not in text:
            found.append(Command(name_of(page), number, words))
    return found


def _named(text: str) -> str:
    return re.sub(r"<([a-z][a-z -]*)>", lambda match: match[1].upper().replace(" ", "_"), text)
