from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from synfer.foundation.deferred_package import defer

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package ``slow_package`` whose ``__init__`` counts how often it has run, by a module of its own."""
    folder = tmp_path / "slow_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from slow_package import runs\nruns.COUNT += 1\nHEAVY = 3\nLIGHT = 'whole'\n")
    (folder / "runs.py").write_text("COUNT = 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield "slow_package"
    for name in [name for name in sys.modules if name.startswith("slow_package")]:
        del sys.modules[name]


def test_it_runs_once_and_when_it_is_needed(package: str) -> None:
    asked: list[str] = []
    defer(package, {"LIGHT": lambda: asked.append("light") or "light"})
    module = import_module(package)
    runs = import_module("slow_package.runs")
    assert module.LIGHT == module.LIGHT == "light" and asked == ["light"] and runs.COUNT == 0
    assert not hasattr(module, "__wrapped__") and runs.COUNT == 0  # Python asks any module for such names
    assert module.HEAVY == 3 and runs.COUNT == 1 and module.LIGHT == "whole"
    assert module.runs is runs
    with pytest.raises(AttributeError, match="'slow_package' has no attribute 'nothing'"):
        module.nothing  # noqa: B018
    assert runs.COUNT == 1 and module.__file__.endswith("slow_package/__init__.py")


def test_names_can_be_imported_from_it(package: str) -> None:
    defer(package, {})
    defer(package, {})
    assert sum(getattr(finder, "package", None) == package for finder in sys.meta_path) == 1
    from slow_package import HEAVY, runs  # type: ignore[import-not-found]

    assert HEAVY == 3 and runs.COUNT == 1


def test_what_is_there_already_and_what_is_not_installed_stays(package: str) -> None:
    import_module(package)
    defer(package, {})
    assert not [finder for finder in sys.meta_path if getattr(finder, "package", None) == package]
    defer("no_such_package", {})
    with pytest.raises(ModuleNotFoundError):
        import_module("no_such_package")


def test_training_does_without_what_torchmetrics_imports_and_nothing_of_it_is_missing() -> None:
    script = (
        "import sys\n"
        "from experiments.command_line.lean_imports import defer_what_is_not_used\n"
        "defer_what_is_not_used()\n"
        "import experiments.command_line.train_command, lightning_modules.classifier\n"
        "names = ('scipy', 'transformers', 'matplotlib', 'torchmetrics.text', 'torchmetrics.image')\n"
        "heavy = [name for name in names if name in sys.modules]\n"
        "assert not heavy, heavy\n"
        "import torch, torchmetrics\n"
        "from torchmetrics.functional import accuracy\n"
        "from torchmetrics.text import BLEUScore\n"
        "assert issubclass(torchmetrics.Accuracy(task='binary').__class__, torchmetrics.Metric)\n"
        "assert float(accuracy(torch.tensor([1, 0]), torch.tensor([1, 1]), task='binary')) == 0.5\n"
        "import matplotlib; matplotlib.use('Agg')\n"
        "metric = torchmetrics.Accuracy(task='binary'); metric.update(torch.tensor([1]), torch.tensor([1]))\n"
        "assert metric.plot()[0].axes and 'matplotlib.pyplot' in sys.modules\n"
        "missing = [name for name in torchmetrics.__all__ if not hasattr(torchmetrics, name)]\n"
        "assert not missing and len(torchmetrics.__all__) > 90, missing\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
