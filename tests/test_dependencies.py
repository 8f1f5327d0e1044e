"""What the code imports is what the project declares."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = {"PIL": "pillow", "yaml": "pyyaml"}
"""Modules whose package has another name."""


def test_every_imported_package_is_declared() -> None:
    text = (PROJECT / "pyproject.toml").read_text()
    declared = set(re.findall(r'"([\w-]+)(?:\[[\w,]+\])?[><=]', text))
    ours = {path.stem for path in PROJECT.iterdir()}
    sources = [
        *PROJECT.glob("*.py"),
        *(p for room in re.findall(r'"(\w+)\*"', text) for p in (PROJECT / room).rglob("*.py")),
    ]
    imported: set[str] = set()
    importers: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
        if "datasets" in imported:
            importers.add(source.name)
            imported.remove("datasets")
    imported -= ours | set(sys.stdlib_module_names)
    assert {"torch", "numpy", "PIL"} <= imported and importers == {"hub_captions.py", "hub_set.py"}
    assert {PACKAGES.get(name, name) for name in imported} - declared == set()


def test_the_installed_versions_are_those_allowed() -> None:
    packaging = pytest.importorskip("packaging.requirements")
    for line in re.findall(r'^    "([^"]+)",', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE):
        if re.match(r"[\w-]+(\[[\w,]+\])?[><=]", line):
            wanted = packaging.Requirement(line)
            assert wanted.specifier.contains(metadata.version(wanted.name)), line
