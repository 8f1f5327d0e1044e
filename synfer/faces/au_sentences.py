"""Action units in words: what acts in a face, and how strongly, as a sentence of its caption."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from synfer.foundation.counter_based_random import keyed_uniform
from synfer.foundation.random_streams import Stream

_PHRASES = {
    "1": "raised {}inner brow{s}",
    "2": "raised {}outer brow{s}",
    "4": "lowered {}brow{s}",
    "5": "raised upper eyelids",
    "6": "raised {}cheek{s}",
    "7": "tightened eyelids",
    "9": "wrinkled nose",
    "10": "raised {}upper lip",
    "11": "deepened nasolabial folds",
    "12": "pulled-up {}lip corner{s}",
    "13": "sharply pulled-up lip corners",
    "14": "dimpled {}lip corner{s}",
    "15": "lowered lip corners",
    "16": "lowered lower lip",
    "17": "raised chin",
    "18": "puckered lips",
    "19": "shown tongue",
    "20": "stretched lips",
    "22": "funnelled lips",
    "23": "tightened lips",
    "24": "pressed lips",
    "25": "parted lips",
    "26": "dropped jaw",
    "27": "stretched mouth",
    "32": "bitten lip",
    "38": "flared nostrils",
    "39": "compressed nostrils",
}
"""FACS code → what it does (Ekman and Friesen), with a place for the side of a one-sided unit."""

_STRENGTHS = ("barely", "slightly", "clearly", "strongly", "extremely")
"""Words for the intensities A to E of FACS, each a fifth of (0, 1]."""

AT_REST = "face at rest"
"""What is said where all known units do not act."""


def au_phrase(name: str) -> str:
    """Returns what an action unit does, by its FACS code ("AU1", "AUL12").

    Raises:
        ValueError: there is no phrase of it.
    """
    side = {"AUL": "left ", "AUR": "right "}.get(name[:3], "")
    code = name[3:] if side else name[2:]
    phrase = _PHRASES.get(code)
    if phrase is None or (side and "{}" not in phrase):
        raise ValueError(f"found action unit '{name}', expected one with words of its own (FACS {', '.join(_PHRASES)})")
    return phrase.format(side, s="" if side else "s")


def au_sentence(units: np.ndarray, au_names: Sequence[str], key: int, without_strength: Collection[str] = ()) -> str:
    """Returns the known action units of one face in words: "Slightly raised inner brows, clearly parted lips.".

    A one-sided unit is not said beside its two-sided one. The units come in an order of the sample's own, so that no
    place in the sentence stands for a unit.

    Args:
        units: float (A,) in [0, 1], 0 = does not act, NaN = unknown.
        au_names: names of the A units.
        key: integer of the sample, which alone decides the order.
        without_strength: units whose numbers say whether they act (presence, or how sure a tool is of it), and not how
            strongly: above one half they are said without a word for it, else they do not act.

    Returns:
        the sentence; "" where no unit is known.
    """
    if np.isnan(units).all():
        return ""
    known = zip(au_names, units.tolist(), strict=True)
    acting = {name: float(v) for name, v in known if v > (0.5 if name in without_strength else 0)}
    said = [name for name in acting if not (name[:3] in ("AUL", "AUR") and f"AU{name[3:]}" in acting)]
    if not said:
        return f"{AT_REST.capitalize()}."
    order = keyed_uniform(np.array([key], dtype=np.uint64), len(said), Stream.AU_SENTENCE)[0].argsort()
    strengths = {name: "" if name in without_strength else f"{_strength(acting[name])} " for name in said}
    phrases = [f"{strengths[said[i]]}{au_phrase(said[i])}" for i in order.tolist()]
    return f"{', '.join(phrases).capitalize()}."


def _strength(intensity: float) -> str:
    return _STRENGTHS[min(max(int(np.ceil(intensity * 5 - 1e-6)), 1), 5) - 1]
