"""KDEF, the Karolinska Directed Emotional Faces."""

from __future__ import annotations

import re
from collections.abc import Sequence

from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import ListedPicture, Listing
from datamodules.readers.people import HeldOutPeople
from datamodules.readers.people_reader import PeopleReader
from datamodules.readers.reader import BadSamples, OnBadSample
from synfer.faces.expressions import LABEL_SPACES

CODES = {
    "AF": "fear",  # afraid
    "AN": "anger",
    "DI": "disgust",
    "HA": "happy",
    "NE": "neutral",
    "SA": "sad",
    "SU": "surprise",
}
"""Letters 5 and 6 of a file's name → expression; at its beginning AF is session A, female."""

ANGLES = {"S": "straight", "HL": "half left", "HR": "half right", "FL": "full left", "FR": "full right"}

_NAME = re.compile(r"(?P<session>[AB])(?P<sex>[FM])(?P<id>\d\d)(?P<expression>[A-Z]{2})(?P<angle>FL|FR|HL|HR|S)")


class KDEFReader(PeopleReader):
    """Reads KDEF (Lundqvist, Flykt and Öhman 1998), seven expressions.

    Layout: ``KDEF_and_AKDEF/KDEF/AF01/AF01AFS.JPG`` (562×762 pixels): session A or B, sex, number, expression, angle.
    4,900 pictures, of them 980 straight, of 70 people. Both sessions of a number show one person, and F01 is another
    one than M01. Files of other names (the errata of the release, such as AF31V) are left out and counted. Some
    pictures are black placeholders: they are bad samples. On request, for research alone. It cannot be tried here: it
    is read in its layout alone, made of drawn faces. No official split: folds by person.

    Args:
        root: folder of the data set, of ``KDEF``, or of the people.
        angles: of the head: S straight, HL and HR half, FL and FR full left and right.
        people: which people are held out.
        label_space: as ``ListedPicturesReader``.
        image_size: as there; the pictures are no squares.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: there are no folders of people.
        ValueError: an unknown angle, or a setting out of range.
    """

    title = "KDEF (folders AF01 … BM35)"
    release_space = LABEL_SPACES["basic7"]

    def __init__(
        self,
        root: str,
        angles: Sequence[str] = ("S",),
        people: HeldOutPeople = HeldOutPeople(),  # noqa: B008 (frozen)
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        unknown = [angle for angle in angles if angle not in ANGLES]
        if unknown or not angles:
            found = f"'{unknown[0]}'" if unknown else "none"
            raise ValueError(f"data.reader.init_args.angles: found {found}, expected some of {', '.join(ANGLES)}")
        self._angles = tuple(angles)
        straight, whole = published("KDEF, straight")["all"], published("KDEF")["all"]
        self.all_published = whole if len(set(angles)) == len(ANGLES) else straight * len(set(angles))
        super().__init__(root, people, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        places = (self._root, self._root / "KDEF", self._root / "KDEF_and_AKDEF" / "KDEF")
        found = [place for place in places if any(place.glob("[AB][FM][0-9][0-9]"))]
        if not found:
            raise self._missing("folder of a person such as AF01")
        self._base = found[0]

    def _list_all(self, bad: BadSamples) -> Listing:
        listing = Listing()
        for path in sorted(self._base.glob("[AB][FM][0-9][0-9]/*")):
            if path.suffix.lower() != ".jpg":
                listing.excluded["files of another kind"] += 1
                continue
            name = _NAME.fullmatch(path.stem.upper())
            if name is None:
                listing.excluded["names of the release's errata"] += 1
                continue
            person = name["sex"] + name["id"]
            listing.groups.add(person)
            if name["expression"] not in CODES:
                bad.add(f"{path}: found the expression '{name['expression']}', expected one of {', '.join(CODES)}")
            elif name["angle"] not in self._angles:
                listing.excluded[f"angle {name['angle']}"] += 1
            else:
                identity = path.relative_to(self._base).as_posix()
                listing.pictures.append(ListedPicture(path, CODES[name["expression"]], identity, group=person))
        return listing
