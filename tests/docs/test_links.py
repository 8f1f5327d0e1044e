"""Links lead somewhere, tables have as many cells as columns, and the first pages stay short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PROJECT, lines_of, name_of, pages, spans_of, without_code

KILOBYTE = 1024
LONGEST = {"README.md": 7, "RESULTS.md": 6}
"""Kilobytes of the pages that everybody reads first."""
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FILES = re.compile(r"^(?:configs|docs|findings|assets|tests/benchmarks)/[\w./-]+\.\w+$")


def test_no_link_is_dead() -> None:
    assert not [line for page in pages() for line in dead_links(page)]


def test_files_that_code_spans_name_exist() -> None:
    named = [(page, number, text) for page in pages() for number, text in spans_of(page) if _FILES.match(text)]
    assert len(named) > 20
    missing = [f"{name_of(page)}:{number}: {text}" for page, number, text in named if not (PROJECT / text).is_file()]
    assert not missing


def test_pages_that_configs_name_exist() -> None:
    named = {
        (path, page)
        for path in (PROJECT / "configs").rglob("*.yaml")
        for page in re.findall(r"(?:docs/)?[\w/]+\.md", path.read_text(encoding="utf-8"))
    }
    assert named
    assert not [f"{path.relative_to(PROJECT)}: {page}" for path, page in named if not (PROJECT / page).is_file()]


def test_every_picture_and_every_page_is_shown_somewhere() -> None:
    shown = {target for page in pages() for target in targets_of(page)}
    pictures = set((PROJECT / "assets").iterdir())
    below = set((PROJECT / "docs").rglob("*.md")) - {PROJECT / "docs" / "README.md"}
    assert not (pictures | below) - shown


def test_every_finding_is_named_somewhere() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    assert not [path.name for path in (PROJECT / "findings").iterdir() if f"findings/{path.name}" not in text]


def test_tables_have_as_many_cells_as_columns() -> None:
    assert not [line for page in pages() for line in uneven_rows(page)]


@pytest.mark.parametrize("name", sorted(LONGEST))
def test_the_first_pages_are_short(name: str) -> None:
    assert (PROJECT / name).stat().st_size <= LONGEST[name] * KILOBYTE


def targets_of(page: Path) -> list[Path]:
    """Returns the files that the links and pictures of a page lead to, whether they exist or not."""
    prose = [without_code(line.text) for line in lines_of(page) if line.language is None]
    links = [match[1] for text in prose for match in _LINK.finditer(text)]
    local = [link.partition("#")[0] for link in links if not link.startswith(("http://", "https://", "mailto:"))]
    return [(page.parent / link).resolve() if link else page.resolve() for link in local]


def dead_links(page: Path) -> list[str]:
    """Returns page, line and target of each link to a file or a heading that is not there."""
    dead = []
    for line in lines_of(page):
        if line.language is not None:
            continue
        for match in _LINK.finditer(without_code(line.text)):
            link, _, anchor = match[1].partition("#")
            if match[1].startswith(("http://", "https://", "mailto:")):
                continue
            target = page.parent / link if link else page
            if not target.exists() or (anchor and anchor not in anchors_of(target)):
                dead.append(f"{name_of(page)}:{line.number}: {match[1]}")
    return dead


def anchors_of(page: Path) -> set[str]:
    """Returns the names under which GitHub makes the headings of a page known."""
    names: set[str] = set()
    for line in lines_of(page):
        if line.language is not None or not re.match(r"#{1,6} ", line.text):
            continue
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line.text.lstrip("#").strip()).lower()
        name = re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")
        number = 1
        while name in names:
            name, number = f"{name.removesuffix(f'-{number - 1}')}-{number}", number + 1
        names.add(name)
    return names


def uneven_rows(page: Path) -> list[str]:
    """Returns page and line of each table row whose number of cells is not that of the table's head."""
    wrong, columns = [], 0
    for line in lines_of(page):
        row = without_code(line.text).strip() if line.language is None else ""
        if not row.startswith("|"):
            columns = 0
            continue
        cells = len(re.split(r"(?<!\\)\|", row.strip("|"))) if row.endswith("|") else -1
        columns = columns or cells
        if cells != columns:
            wrong.append(f"{name_of(page)}:{line.number}: {cells} cells, expected {columns}")
    return wrong


# ------------------------------------------------------------------------------------------------ the test itself


def test_dead_links_and_uneven_rows_are_named(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Other\n\n## The `key` cell, 5 %\n\n## Twice\n\n## Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n[a](other.md) [b](other.md#the-key-cell-5-) [c](#a-page) [d](other.md#twice-1)\n"
        "[e](gone.md)\n![f](gone.png) [g](other.md#gone)\n`[h](in-code.md)` [i](https://example.org/gone)\n\n"
        "| a | b |\n| --- | --- |\n| 1 | `x | y` |\n| 1 |\n"
    )
    assert dead_links(page) == ["page.md:4: gone.md", "page.md:5: gone.png", "page.md:5: other.md#gone"]
    assert uneven_rows(page) == ["page.md:11: 1 cells, expected 2"]
