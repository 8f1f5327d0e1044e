"""What is said about versions and images fits what the project declares and holds."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import train

packaging = pytest.importorskip("packaging.requirements")
PROJECT = Path(__file__).resolve().parents[1]
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu")


def declared() -> dict[str, list[str]]:
    """Group → requirements of pyproject.toml; "" = those of the project itself."""
    text = (PROJECT / "pyproject.toml").read_text()
    groups = {"": re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]}  # type: ignore[index]
    extras = re.search(r"\[project\.optional-dependencies\]\n(.*?)\n\n", text, re.DOTALL)[1]  # type: ignore[index]
    groups |= dict(re.findall(r"^([\w-]+) = \[(.*)\]", extras, re.MULTILINE))
    found = {name: re.findall(r'"([A-Za-z][^"]*)"', body) for name, body in groups.items()}
    assert len(found[""]) > 20 and {"slurm", "dev"} <= set(found)
    return found


def pinned() -> dict[str, str]:
    lines = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[\w.]+", line) for line in lines)  # no paths, no hosts
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0])
    return dict(line.split("==") for line in lines)  # type: ignore[misc]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_keep_to_what_the_project_declares() -> None:
    versions, groups = pinned(), declared()
    for group, lines in groups.items():
        for line in lines:
            wanted = packaging.Requirement(line)
            version = versions.get(plain(wanted.name))
            assert version is not None or group not in ("", "slurm"), f"{line} is not in constraints.txt"
            assert version is None or wanted.specifier.contains(version), f"{line}: constraints.txt says {version}"


def test_constraints_fit_each_other_as_far_as_they_are_installed() -> None:
    from importlib import metadata

    versions, compared = pinned(), 0
    for name, version in versions.items():
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if found.version.partition("+")[0] != version:
            continue
        for line in found.requires or []:
            wanted = packaging.Requirement(line)
            known = versions.get(plain(wanted.name))
            if known is not None and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                assert wanted.specifier.contains(known, prereleases=True), f"{name} {version} wants {line}"
                compared += 1
    assert compared > 20 or not versions


def instructions(name: str) -> list[tuple[str, str]]:
    text = (PROJECT / name).read_text().replace("\\\n", " ")
    found = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(keyword, rest) for keyword, rest in found]


def copied_by(steps: list[tuple[str, str]]) -> list[str]:
    """Names in the project that an image gets; patterns as what they find."""
    words = [word for keyword, rest in steps if keyword == "COPY" for word in rest.split()[:-1]]
    return [name for word in words for name in (sorted(p.name for p in PROJECT.glob(word)) if "*" in word else [word])]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_made_of_what_is_there(name: str) -> None:
    steps = instructions(name)
    known = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}
    assert {keyword for keyword, _ in steps} <= known and steps[0][0] == "FROM"
    bases = [rest for keyword, rest in steps if keyword == "FROM"]
    assert bases and all(re.fullmatch(r"[\w./-]+:\d[\w.-]+", base) for base in bases)  # a version, not "latest"
    assert [rest for keyword, rest in steps if keyword == "USER"] == ["synfer"]
    copied = copied_by(steps)
    ignored = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for word in copied:
        assert (PROJECT / word).exists() and word not in ignored, word


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_holds_all_that_is_installed(name: str) -> None:
    text = (PROJECT / "pyproject.toml").read_text()
    modules = re.search(r"^py-modules = \[(.*)\]", text, re.MULTILINE)[1]  # type: ignore[index]
    packages = re.search(r"^include = \[(.*)\]", text, re.MULTILINE)[1]  # type: ignore[index]
    needed = {f"{name}.py" for name in re.findall(r'"(\w+)"', modules)} | set(re.findall(r'"(\w+)\*"', packages))
    assert needed | {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"} == set(copied_by(instructions(name)))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_runs_is_a_command_of_ours(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    steps = dict(instructions(name))
    program, default = json.loads(steps["ENTRYPOINT"]), json.loads(steps["CMD"])
    assert program == ["python", "/opt/synfer/train.py"] and default == ["--help"]
    for rest in (rest for keyword, rest in instructions(name) if keyword == "RUN" and rest.startswith("pip ")):
        words = shlex.split(rest)
        assert words[:2] == ["pip", "install"] and "--constraint" in words and "constraints.txt" in words
    with pytest.raises(SystemExit) as stopped:
        train.main(default)
    assert not stopped.value.code and "fit" in capsys.readouterr().out
