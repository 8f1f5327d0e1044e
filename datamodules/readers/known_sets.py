"""How many pictures the releases of data sets have, and the copies of them that go round: one table for all readers.

A copy with a tenth of the pictures, or with its expressions in another order, gives results that nobody can compare.
What is found is held against this table: the number of pictures, and where it is known that of each expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synfer.foundation.on_rank_zero import warn_on_rank_zero

_ORDER = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


@dataclass(frozen=True)
class KnownSet:
    """A split of a release, or of a copy.

    Attributes:
        data_set: which one it is a release or a copy of.
        split: train, val or test; "all" of a set without official splits.
        rows: number of labelled pictures.
        classes: expression → number of pictures; {} = not known.
        copy: what the copy is called; "" = the release itself.
        pitfall: what to mind with it; "" = nothing.
        source: where the numbers stand.
    """

    data_set: str
    split: str
    rows: int
    classes: Mapping[str, int]
    copy: str
    pitfall: str
    source: str

    @property
    def named(self) -> str:
        """What it is called in a message."""
        return f"{self.copy or 'the release'} of {self.data_set}, split '{self.split}'"


def _known(
    data_set: str,
    split: str,
    rows: int,
    classes: Sequence[int] | None = None,
    copy: str = "",
    pitfall: str = "",
    source: str = "",
) -> KnownSet:
    """Returns an entry; ``classes`` are numbers in the project's order of expressions, 0 = none."""
    counts = {name: n for name, n in zip(_ORDER, classes or (), strict=False) if n}
    return KnownSet(data_set, split, rows, counts, copy, pitfall, source)


_ALPHABETICAL = "its numbers count alphabetically: neutral is 4, where FER2013's own table has 6"
_RAF_FOLDERS = "its folders 1 to 7 are surprise, fear, disgust, happy, sad, anger, neutral (class_map: rafdb)"
_RAF_SOURCE = "counted in list_patition_label.txt, as public repositories store it"
_CARD = "card of the data set on the Hub"

KNOWN_SETS = (
    _known(
        *("RAF-DB basic", "train", 12_271, (2524, 4772, 1982, 1290, 281, 717, 705)),
        pitfall=_RAF_FOLDERS,
        source=_RAF_SOURCE,
    ),
    _known(
        *("RAF-DB basic", "test", 3_068, (680, 1185, 478, 329, 74, 160, 162)),
        pitfall=_RAF_FOLDERS,
        source=_RAF_SOURCE,
    ),
    _known("RAF-DB basic", "train", 12_175, copy="Norface's copy", source="liuhw01/Norface, issue 5"),
    _known("RAF-DB basic", "test", 3_031, copy="Norface's copy", source="liuhw01/Norface, issue 5"),
    _known("RAF-DB compound", "train", 3_162, source="CD-FER's and others' loaders"),
    _known("RAF-DB compound", "test", 792, source="CD-FER's and others' loaders"),
    _known(
        *("AffectNet, eight expressions", "train", 287_651),
        (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750),
        source="loaders of the release of 2021 (DAN, EmotiEffLib)",
    ),
    _known(
        *("AffectNet, eight expressions", "val", 3_999, (500, 500, 500, 500, 500, 500, 500, 499)),
        source="loaders of the release of 2021 (DAN, EmotiEffLib)",
    ),
    _known(
        *("AffectNet's first release, eight expressions", "train", 287_651),
        (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750),
        source="Mollahosseini, Hasani and Mahoor 2017; rows of training.csv",
    ),
    _known(
        *("AffectNet's first release, eight expressions", "val", 4_000, (500,) * 8),
        source="Mollahosseini, Hasani and Mahoor 2017; rows of validation.csv",
    ),
    _known(
        *("AffectNet, seven expressions", "train", 283_901),
        (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882),
        source="loaders of both releases",
    ),
    _known("AffectNet, seven expressions", "val", 3_500, (500,) * 7, source="loaders of both releases"),
    _known(
        *("AffectNet, eight expressions", "train", 287_568),
        copy="the release of 2021 as some of its documents count it",
        source="documents beside the release",
    ),
    _known(
        *("AffectNet, seven expressions", "train", 27_823),
        copy="the Hub's copy affectnethq, a tenth",
        pitfall=_ALPHABETICAL,
        source=f"Piro17/affectnethq: {_CARD}",
    ),
    _known(
        *("AffectNet with FER2013", "train", 21_343),
        copy="the Hub's mixture balancednumber-affecthqnet-fer2013",
        pitfall=_ALPHABETICAL,
        source=f"Piro17/balancednumber-affecthqnet-fer2013: {_CARD}",
    ),
    _known(
        *("AffectNet, eight expressions", "all", 31_002),
        copy="the part that EmoNet-Face's authors evaluate on",
        pitfall="its numbers count alphabetically: anger 0, contempt 1, neutral 5",
        source="LAION-AI/emonet-face, eval/eval.ipynb and config.py",
    ),
    _known(
        *("FER2013", "train", 28_709, (4965, 7215, 4830, 3171, 4097, 436, 3995)),
        source="fer2013.csv, Usage Training",
    ),
    _known(
        *("FER2013", "val", 3_589, (607, 895, 653, 415, 496, 56, 467)),
        source="fer2013.csv, Usage PublicTest",
    ),
    _known(
        *("FER2013", "test", 3_589, (626, 879, 594, 416, 528, 55, 491)),
        source="fer2013.csv, Usage PrivateTest",
    ),
    _known(
        *("FER2013", "test", 7_178, (1233, 1774, 1247, 831, 1024, 111, 958)),
        copy="the copy as folders",
        pitfall="its test folder holds PublicTest and PrivateTest, so whoever chooses on the one has seen half of it",
        source=f"sum of both usages of fer2013.csv; Piro17/fer2013test: {_CARD}",
    ),
    _known("CK+, labelled sequences", "all", 327, source="Lucey and others 2010"),
    _known("Oulu-CASIA, sequences of a camera and a light", "all", 480, source="80 people with six each"),
    _known(
        *("CK+48", "all", 981, (0, 207, 84, 249, 75, 177, 135, 54)),
        pitfall="it is a copy of CK+ with three frames of each sequence, and a random split has them on both sides: "
        "CK48Reader splits it by person",
        source=f"Kaggle's and the Hub's copies of CK+48: {_CARD}",
    ),
    _known(
        *("CK+", "all", 920, (593, 69, 28, 83, 25, 59, 45, 18)),
        copy="the copy as a csv of pixels, one frame of each sequence",
        pitfall="its codes are FER2013's with contempt as 7, and its Usage is a random split without people",
        source="card of AlirezaF138/ckplus-dataset on the Hub",
    ),
    _known(
        *("ExpW", "all", 91_793, (34_883, 30_537, 10_559, 7_060, 1_088, 3_995, 3_671)),
        source="lines of label.lst",
    ),
    _known("SFEW 2.0", "train", 958, source="CD-FER's and others' loaders"),
    _known("SFEW 2.0", "val", 436, source="CD-FER's and others' loaders"),
    _known("JAFFE", "all", 213, source="Lyons and others 1998"),
    _known("KDEF", "all", 4_900, source="Lundqvist, Flykt and Öhman 1998"),
    _known("KDEF, straight", "all", 980, source="Lundqvist, Flykt and Öhman 1998"),
    _known("FERV39k, clips", "train", 31_088, source="lists of the release"),
    _known(
        *("FERV39k, clips", "test", 7_847, (1958, 1473, 1393, 638, 431, 467, 1487)),
        source="lists of the release, three loaders",
    ),
    _known(
        *("ABAW4's synthetic-data set", "train", 277_251, (0, 73_285, 144_631, 14_976, 10_923, 15_150, 18_286)),
        source="EmotiEffLib, abaw4_lsd_train.ipynb",
    ),
    _known("ABAW4's synthetic-data set", "val", 4_670, source="EmotiEffLib, abaw4_lsd_train.ipynb"),
    _known("EmoNet-Face Binary", "train", 19_999, source="binary.csv"),
    _known("EmoNet-Face HQ", "test", 2_500, source="README of LAION-AI/emonet-face"),
)


def published(data_set: str) -> dict[str, int]:
    """Returns split → number of pictures of the release of a data set.

    Raises:
        KeyError: no such data set.
    """
    found = {known.split: known.rows for known in KNOWN_SETS if known.data_set == data_set and not known.copy}
    if not found:
        raise KeyError(data_set)
    return found


def looks_like(rows: int, classes: Mapping[str, int] | None = None) -> list[KnownSet]:
    """Returns the entries with as many pictures and, where both know them, as many of each expression.

    Args:
        rows: labelled pictures.
        classes: expression → number of pictures; None = not told.
    """
    counts = {name: n for name, n in (classes or {}).items() if n}
    found = [known for known in KNOWN_SETS if known.rows == rows]
    return [known for known in found if not counts or not known.classes or known.classes == counts]


def permuted(classes: Mapping[str, int]) -> KnownSet | None:
    """Returns the entry whose expressions have the same numbers under other names: the labels are another's.

    Args:
        classes: expression → number of pictures.
    """
    counts = {name: n for name, n in classes.items() if n}
    different = len(set(counts.values())) == len(counts) > 2  # equal numbers would be a permutation of anything
    for known in KNOWN_SETS:
        other_names = bool(known.classes) and known.classes != counts
        if different and other_names and sorted(known.classes.values()) == sorted(counts.values()):
            return known
    return None


def say_what_it_is(where: str, classes: Mapping[str, int]) -> None:
    """Warns where a set that names no release has the numbers of a copy, or those of a release under other names.

    The release itself in another layout is as good as the release: nothing is said.

    Args:
        where: split and folder, for the message.
        classes: expression → number of pictures.
    """
    other = permuted(classes)
    if other is not None:
        mixed = [f"{n:,} {name} is {_name_of(other, n)} there" for name, n in classes.items() if n][:8]
        wrong = [text for text in mixed if text.split()[1] != text.split()[3]]
        pitfall = f" ({other.pitfall})" if other.pitfall else ""
        warn_on_rank_zero(
            f"{where}: found the numbers of {other.named}, under other names: {', '.join(wrong[:3])}"
            f"{', …' if len(wrong) > 3 else ''}: its labels are most probably read in another order than they were "
            f"written in{pitfall}"
        )
        return
    for known in looks_like(sum(classes.values()), classes):
        if known.copy or (known.pitfall and known.split == "all"):
            pitfall = f"; {known.pitfall}" if known.pitfall else ""
            warn_on_rank_zero(
                f"{where}: found {known.rows:,} pictures, as many as {known.named}: results are not comparable with "
                f"those that are published on the release{pitfall}"
            )
            return


def _name_of(known: KnownSet, rows: int) -> str:
    return next(name for name, n in known.classes.items() if n == rows)
