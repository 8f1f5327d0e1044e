"""How far a guide is to be believed at each noise level: the temperatures, and the file that holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synfer.foundation.file_reading import FileError, reading
from synfer.foundation.json_file import read_json, write_json
from synfer.networks.temperature import LARGEST, SMALLEST

KIND = "guide_calibration"
_WHAT = "calibration of a guide"
_EXPECTED = "what a run with guidance.calibration has written"


@dataclass(frozen=True)
class CalibratedLevel:
    """What was found at one noise level.

    Attributes:
        noise: √(1 − ᾱ), in [0, 1].
        temperature: by which the guide's logits are divided there, in [0.05, 20].
        accuracy: share of the faces that the guide recognises there, in [0, 1].
        loss: mean −log p of the true expressions at that temperature, in nats.
        loss_before: the same at a temperature of 1.
    """

    noise: float
    temperature: float
    accuracy: float
    loss: float
    loss_before: float


@dataclass(frozen=True)
class TemperatureTable:
    """Temperatures of one guide on the faces that one generator predicts.

    Attributes:
        guide: fingerprint of the guide's weights.
        generator: fingerprint of the diffusion model.
        rows: fingerprint of the training faces that they were fitted on.
        faces: how many those are.
        levels: by noise, ascending, at least one.
    """

    guide: str
    generator: str
    rows: str
    faces: int
    levels: tuple[CalibratedLevel, ...]

    def temperature(self, noise: float) -> float:
        """Returns T at a noise level √(1 − ᾱ): its logarithm is linear between the levels, and constant outside."""
        noises = [level.noise for level in self.levels]
        logarithms = np.log([level.temperature for level in self.levels])
        return float(np.exp(np.interp(noise, noises, logarithms)))

    def write(self, path: Path) -> Path:
        """Writes the file, whole or not at all, and returns it."""
        return write_json(path, {"kind": KIND, **asdict(self)})


def read_temperatures(path: Path) -> TemperatureTable:
    """Returns the table in a file.

    Raises:
        FileNotFoundError: no such file.
        FileError: another file, or numbers that are none of a calibration.
    """
    found = read_json(path, _WHAT, _EXPECTED)
    with reading(_WHAT, path, _EXPECTED):
        if found.get("kind") != KIND:
            raise FileError(f"{_WHAT} '{path}': found kind {found.get('kind')}, expected {_EXPECTED}")
        levels = tuple(_level(each) for each in found["levels"])
        names = {name: str(found[name]) for name in ("guide", "generator", "rows")}
        table = TemperatureTable(**names, faces=int(found["faces"]), levels=levels)
    noises = [level.noise for level in levels]
    if not levels or noises != sorted(set(noises)) or not 0 <= noises[0] <= noises[-1] <= 1:
        raise FileError(f"{_WHAT} '{path}': found noise levels {noises}, expected rising ones in [0, 1]")
    wrong = [level.temperature for level in levels if not SMALLEST <= level.temperature <= LARGEST]
    if wrong:
        raise FileError(
            f"{_WHAT} '{path}': found a temperature of {wrong[0]:g}, expected one in [{SMALLEST:g}, {LARGEST:g}]"
        )
    return table


def _level(found: dict[str, Any]) -> CalibratedLevel:
    return CalibratedLevel(**{name: float(found[name]) for name in CalibratedLevel.__dataclass_fields__})
