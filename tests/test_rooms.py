"""Imports run one way, there is no circle among them, and no file holds more than one idea."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
ROOMS = ("synfer", "datamodules", "lightning_modules", "callbacks", "experiments", "demo")
"""Each may import itself and those before it."""

LIBRARY = (
    *("foundation", "faces", "optimisation", "labels", "metrics", "pictures", "runs", "networks", "representation"),
    "synthesis",
    "export",
)
"""The same among the folders of ``synfer``."""

PROGRAM = "synfer.__main__"
"""``python -m synfer``: a program as those in the project's folder, and no part of the library."""

LIBRARY_IS_WITHOUT = {"lightning", "pytorch_lightning", "jsonargparse", "wandb"}
HEAVY = {"torch", "lightning", "diffusers", "transformers", "timm"}
MAX_LINES, PROGRAM_LINES = 450, 60


@cache
def sources() -> dict[str, Path]:
    """Returns module → file."""
    found = {}
    for path in [*PROJECT.glob("*.py"), *(path for room in ROOMS for path in (PROJECT / room).rglob("*.py"))]:
        name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Returns the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in sources() else node.module


@cache
def graph() -> dict[str, set[str]]:
    """Returns module → modules of ours that it imports."""
    return {
        name: {target for target in imported(path) if target in sources()} - {name} for name, path in sources().items()
    }


def rank(name: str) -> tuple[int, int]:
    """Returns how far up a module stands: (room, folder of the library)."""
    room, *rest = name.split(".")
    if room not in ROOMS or name == PROGRAM:
        return len(ROOMS), 0
    folder = LIBRARY.index(rest[0]) if room == "synfer" and rest else -1
    return ROOMS.index(room), folder


def test_every_folder_has_its_place() -> None:
    folders = {name.split(".")[1] for name in sources() if name.startswith("synfer.") and name != PROGRAM}
    assert folders <= set(LIBRARY)
    for path in sources().values():
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path} does not say what belongs there"


def test_no_import_runs_up() -> None:
    up = {(name, target) for name, targets in graph().items() for target in targets if rank(target) > rank(name)}
    assert not up


def test_every_import_leads_somewhere() -> None:
    """An editable installation finds what only another checkout has."""
    lost = {
        (name, target)
        for name, path in sources().items()
        for target in imported(path)
        if target.split(".")[0] in ROOMS and target not in sources()
    }
    assert not lost


def test_nothing_imports_in_a_circle() -> None:
    assert not circles(graph())


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Returns the sets of modules that reach each other."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in edges.get(waiting.pop(), set()) - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    reached = {name: reach(name) for name in edges}
    found = {frozenset(b for b in edges if b in reached[a] and a in reached[b]) for a in edges if a in reached[a]}
    return [set(circle) for circle in found]


def test_the_library_stands_without_lightning() -> None:
    found = {
        (name, target)
        for name, path in sources().items()
        if name.split(".")[0] == "synfer"
        for target in imported(path)
        if target.split(".")[0] in LIBRARY_IS_WITHOUT
    }
    assert not found


def test_what_compares_runs_needs_no_torch() -> None:
    """From what is imported at the top of each file, and of the files that it imports there."""
    seen, waiting = set(), ["compare", *(name for name in sources() if name.startswith("synfer.runs"))]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.parse(sources()[name].read_text(encoding="utf-8")).body:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            assert not HEAVY & {module.split(".")[0] for module in modules}, name
            waiting += [module for module in modules if module in sources()]


_PROGRAMS = ("train", "sweep", "compare", "export", "label", "sample", "serve", "preview", "synfer/__main__")


@pytest.mark.parametrize("name", [f"{name}.py" for name in _PROGRAMS if (PROJECT / f"{name}.py").is_file()])
def test_programs_only_call(name: str) -> None:
    assert len((PROJECT / name).read_text().splitlines()) <= PROGRAM_LINES


def test_no_file_is_long() -> None:
    long = {
        str(path.relative_to(PROJECT))
        for path in sources().values()
        if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES
    }
    assert not long
