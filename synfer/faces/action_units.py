"""Names of action units, the regions of the face that they move, and the FACS prototypes of the expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ACTION_UNITS = (
    *(
        f"AU{n}"
        for n in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 32, 38, 39)
    ),
    *(f"AU{side}{n}" for n in (1, 2, 4, 6, 10, 12, 14) for side in "LR"),
)
"""The 41 action units of OpenGraphAU in its order: 27 main, then 14 one-sided (``AUL12`` is the left lip corner)."""

REGIONS: dict[str, tuple[str, ...]] = {
    "brows": ("AU1", "AU2", "AU4", "AUL1", "AUR1", "AUL2", "AUR2", "AUL4", "AUR4"),
    "eyes": ("AU5", "AU6", "AU7", "AUL6", "AUR6"),
    "nose": ("AU9", "AU10", "AU11", "AU38", "AU39", "AUL10", "AUR10"),
    "mouth": (
        *(f"AU{n}" for n in (12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 32)),
        *("AUL12", "AUR12", "AUL14", "AUR14"),
    ),
}
"""Which part of the face an action unit moves; the AU adapter makes one token of each region."""


@dataclass(frozen=True)
class Prototype:
    """Action units of one expression (EMFACS; Ekman and Friesen).

    Attributes:
        core: units that nearly always act.
        often: units that are often added.
    """

    core: tuple[str, ...]
    often: tuple[str, ...] = ()


FACS_PROTOTYPES: dict[str, Prototype] = {
    "neutral": Prototype(()),
    "happy": Prototype(("AU6", "AU12"), ("AU25",)),
    "sad": Prototype(("AU1", "AU4", "AU15"), ("AU11", "AU17")),
    "surprise": Prototype(("AU1", "AU2", "AU5", "AU26"), ("AU25", "AU27")),
    "fear": Prototype(("AU1", "AU2", "AU4", "AU5", "AU20"), ("AU7", "AU25", "AU26")),
    "disgust": Prototype(("AU9", "AU15"), ("AU4", "AU10", "AU16", "AU17")),
    "anger": Prototype(("AU4", "AU5", "AU7", "AU23"), ("AU10", "AU24", "AU25")),
    "contempt": Prototype(("AUR12", "AUR14")),
}


def action_unit_indices(names: Sequence[str], au_names: Sequence[str] = ACTION_UNITS) -> list[int]:
    """Returns the positions of action units by name.

    Raises:
        ValueError: an action unit that ``au_names`` does not hold.
    """
    position = {name: index for index, name in enumerate(au_names)}
    unknown = [name for name in names if name not in position]
    if unknown:
        raise ValueError(f"unknown action unit '{unknown[0]}': expected one of {', '.join(au_names)}")
    return [position[name] for name in names]


def sample_action_units(
    expressions: Sequence[str], uniform: np.ndarray, au_names: Sequence[str] = ACTION_UNITS
) -> np.ndarray:
    """Draws one action-unit vector per expression from its FACS prototype.

    People differ, so intensities vary (core units 0.5–1, added units 0.3–0.9) and each added unit is left out half of
    the time.

    Args:
        expressions: n canonical names.
        uniform: random numbers in [0, 1), (n, 2, A): the caller owns the randomness, and thereby reproducibility.
        au_names: names of the A columns; units of a prototype that are not among them are left out.

    Returns:
        float32 (n, A) in [0, 1]; 0 is "does not act".
    """
    vectors = np.zeros((len(expressions), len(au_names)), dtype=np.float32)
    columns = {
        name: tuple(action_unit_indices([u for u in units if u in au_names], au_names) for units in (p.core, p.often))
        for name, p in FACS_PROTOTYPES.items()
        if name in set(expressions)
    }
    for row, name in enumerate(expressions):
        core, often = columns[name]
        vectors[row, core] = 0.5 + 0.5 * uniform[row, 0, core]
        vectors[row, often] = (0.3 + 0.6 * uniform[row, 0, often]) * (uniform[row, 1, often] < 0.5)
    return vectors


def mirrored_order(au_names: Sequence[str] = ACTION_UNITS) -> list[int]:
    """Returns the column order of the mirrored face: what the left side did, the right side does.

    ``vectors[:, mirrored_order(names)]`` are the action units, (n, A), of the faces flipped left to right.

    Raises:
        ValueError: a one-sided action unit whose other side is not among the names.
    """
    other_side = {"AUL": "AUR", "AUR": "AUL"}
    return action_unit_indices([other_side.get(name[:3], name[:3]) + name[3:] for name in au_names], au_names)
