from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from synfer.foundation.file_reading import FileError
from synfer.synthesis.diffusion.temperature_table import CalibratedLevel, TemperatureTable, read_temperatures


def table(*pairs: tuple[float, float]) -> TemperatureTable:
    levels = tuple(CalibratedLevel(noise, temperature, 0.5, 1.0, 1.5) for noise, temperature in pairs)
    return TemperatureTable("guide", "generator", "rows", 512, levels)


def test_its_logarithm_is_linear_between_the_levels_and_constant_outside() -> None:
    found = table((0.2, 1.0), (0.6, 4.0), (1.0, 2.0))
    assert found.temperature(0.2) == pytest.approx(1) and found.temperature(0.6) == pytest.approx(4)
    assert found.temperature(0.4) == pytest.approx(2)  # half way from 1 to 4, as factors go
    assert found.temperature(0.9) == pytest.approx(math.exp(0.25 * math.log(4) + 0.75 * math.log(2)))
    assert found.temperature(0.0) == pytest.approx(1) and found.temperature(1.0) == pytest.approx(2)
    assert table((0.5, 3.0)).temperature(0.1) == pytest.approx(3)


def test_a_file_gives_it_back(tmp_path: Path) -> None:
    found = table((0.25, 1.25), (0.5, 3.0))
    path = found.write(tmp_path / "new" / "x.json")
    assert read_temperatures(path) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "synthetic_set"}, r"found kind synthetic_set, expected what a run with guidance.calibration has"),
        ({"levels": []}, r"found noise levels \[\], expected rising ones in \[0, 1\]"),
        ({"levels": [(0.5, 1.0), (0.2, 1.0)]}, r"found noise levels \[0.5, 0.2\]"),
        ({"levels": [(0.2, 1.0), (1.2, 1.0)]}, r"found noise levels \[0.2, 1.2\]"),
        ({"levels": [(0.2, 0.0)]}, r"found a temperature of 0, expected one in \[0.05, 20\]"),
        ({"levels": [(0.2, math.nan)]}, r"found a temperature of nan"),
        ({"levels": [(math.nan, 1.0)]}, r"found noise levels \[nan\]"),
        ({"guide": None}, r"calibration of a guide '.*x.json'"),
    ],
)
def test_another_file_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = table((0.2, 1.0)).write(tmp_path / "x.json")
    found = json.loads(path.read_text())
    if "levels" in changes:
        changes = {"levels": [{**found["levels"][0], "noise": n, "temperature": t} for n, t in changes["levels"]]}
    path.write_text(json.dumps({key: value for key, value in {**found, **changes}.items() if value is not None}))
    with pytest.raises(FileError, match=message):
        read_temperatures(path)


def test_a_file_that_is_no_json_and_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(FileError, match=r"calibration of a guide '.*x.json'"):
        read_temperatures(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError, match=r"nowhere.json"):
        read_temperatures(tmp_path / "nowhere.json")
