"""Which expression a folder's name means: a word, or a number under a coding that the user names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from synfer.faces.expressions import canonical_expression
from synfer.foundation.file_reading import did_you_mean

_KEY = "data.reader.init_args.class_map"


def _counted(names: str) -> dict[str, str | None]:
    """Returns number → name, from 0."""
    return {str(number): name for number, name in enumerate(names.split())}


CODINGS: dict[str, dict[str, str | None]] = {
    "rafdb": {
        "1": "surprise",
        "2": "fear",
        "3": "disgust",
        "4": "happy",
        "5": "sad",
        "6": "anger",
        "7": "neutral",
    },
    "affectnet": {
        "0": "neutral",
        "1": "happy",
        "2": "sad",
        "3": "surprise",
        "4": "fear",
        "5": "disgust",
        "6": "anger",
        "7": "contempt",
        "8": None,  # none of these
        "9": None,  # uncertain
        "10": None,  # no face
    },
    "fer2013": {
        "0": "anger",
        "1": "disgust",
        "2": "fear",
        "3": "happy",
        "4": "sad",
        "5": "surprise",
        "6": "neutral",
    },
    "ckplus": _counted("neutral anger contempt disgust fear happy sad surprise"),
    "ferv39k": _counted("happy sad neutral anger surprise disgust fear"),
    "alphabetical7": _counted("anger disgust fear happy neutral sad surprise"),
    "alphabetical8": _counted("anger contempt disgust fear happy neutral sad surprise"),
}
"""Numbers of public data sets → expression, None = left out: RAF-DB (Li et al., CVPR 2017; basic emotions), AffectNet
(Mollahosseini et al., arXiv 1708.03985), FER2013 and ExpW, CK+, FERV39k, and copies that number sorted names."""


class FolderNames:
    """Reads the names of class folders.

    Args:
        class_map: a name of :data:`CODINGS`; or folder name → expression, None = leave that folder out; None = names
            are words. Words are understood beside a map too; leading numbers as in "3_happy" do not matter.

    Raises:
        ValueError: an unknown coding, or an expression that nobody knows.
    """

    def __init__(self, class_map: Mapping[str, str | None] | str | None = None) -> None:
        if isinstance(class_map, str) and class_map not in CODINGS:
            raise ValueError(
                f"{_KEY}: found '{class_map}', expected {', '.join(CODINGS)} or a map such as '{{1: surprise}}'"
                + did_you_mean(class_map, list(CODINGS))
            )
        given = CODINGS[class_map] if isinstance(class_map, str) else class_map or {}
        self._map: dict[str, str | None] = {}
        for name, expression in given.items():
            try:
                self._map[_plain(str(name))] = None if expression is None else canonical_expression(expression)
            except ValueError as error:
                raise ValueError(f"{_KEY}.{name}: {error}") from None

    def expression(self, folder: str) -> str | None:
        """Returns the expression of a folder; None where the map leaves it out.

        Raises:
            ValueError: the name means nothing, or a number has no meaning here.
        """
        key = _plain(folder)
        if key in self._map:
            return self._map[key]
        if key.isdigit():
            raise ValueError(f"found the number '{folder}', expected a name, or what it means in {_KEY}")
        try:
            return canonical_expression(folder)
        except ValueError as error:
            word = re.sub(r"^\d+[\s._-]+", "", folder)
            if word != folder:
                return canonical_expression(word)
            raise ValueError(f"{error} (or --{_KEY} '{{{folder}: …}}' says what the folder means)") from None

    def refuse_unexplained_numbers(self, folders: Iterable[Path], root: Path) -> None:
        """Refuses folders that are numbers without a meaning: two data sets give one number two meanings.

        Raises:
            ValueError: names them and the codings to choose from.
        """
        numbers = sorted({int(f.name) for f in folders if f.name.isdigit() and _plain(f.name) not in self._map})
        if not numbers:
            return
        found = f"the folders {', '.join(map(str, numbers[:12]))}" if len(numbers) > 1 else f"the folder {numbers[0]}"
        if self._map:
            raise ValueError(
                f"{_KEY}: found {found} in '{root}' and no entry for it, expected an expression or null for each number"
            )
        known = [name for name, coding in CODINGS.items() if {str(n) for n in numbers} <= set(coding)]
        shown = "; ".join(f"--{_KEY} {name} ({described(name)})" for name in known or CODINGS)
        raise ValueError(
            f"{_KEY}: found {found} in '{root}', whose numbers mean another thing in each data set, expected one "
            f"of: {shown}; or your own: --{_KEY} '{{{numbers[0]}: surprise, …}}'"
        )


def described(coding: str) -> str:
    """Returns what the numbers of a coding mean, in one line."""
    return ", ".join(f"{number} {name}" for number, name in CODINGS[coding].items() if name is not None)


def _plain(name: str) -> str:
    """Returns a folder's name as keys of a map are compared: lower case, numbers without leading zeros."""
    name = name.strip().lower()
    return str(int(name)) if name.isdigit() else name
