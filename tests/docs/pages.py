"""The pages of the project: which there are, what lies in their fenced blocks, what in their code spans."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(?P<mark>```+|~~~+)\s*(?P<language>\S*)")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")


@dataclass(frozen=True)
class Line:
    """One line of a page.

    Attributes:
        number: from 1.
        text: without its line break.
        language: of the fenced block that it lies in; "" in one without; None outside.
    """

    number: int
    text: str
    language: str | None


def pages() -> list[Path]:
    """Returns all pages of the project: in its root and anywhere below docs/."""
    return sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])


def name_of(page: Path) -> str:
    """Returns a page's path in the project, or its name where it lies elsewhere."""
    return page.relative_to(PROJECT).as_posix() if page.is_relative_to(PROJECT) else page.name


def lines_of(page: Path) -> list[Line]:
    """Returns the lines of a page; those that open or close a block lie outside of it."""
    found, mark, language = [], "", None
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(text.strip())
        if fence is not None and not mark:
            mark, language = fence["mark"], fence["language"]
            found.append(Line(number, "", None))
        elif mark and text.strip() == mark:
            mark, language = "", None
            found.append(Line(number, "", None))
        else:
            found.append(Line(number, text, language))
    return found


def spans_of(page: Path) -> list[tuple[int, str]]:
    """Returns line number and text of every code span outside fenced blocks."""
    outside = [line for line in lines_of(page) if line.language is None]
    return [(line.number, match[2].strip()) for line in outside for match in _SPAN.finditer(line.text)]


def without_code(text: str) -> str:
    """Returns a line of prose with the content of its code spans taken out."""
    return _SPAN.sub("``", text)
