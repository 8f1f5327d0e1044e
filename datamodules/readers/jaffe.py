"""JAFFE, the Japanese Female Facial Expression images."""

from __future__ import annotations

import re

from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import ListedPicture, Listing
from datamodules.readers.people_reader import PeopleReader
from datamodules.readers.reader import BadSamples
from datamodules.rows.image_files import image_suffixes
from synfer.faces.expressions import LABEL_SPACES

CODES = {
    "AN": "anger",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happy",
    "NE": "neutral",
    "SA": "sad",
    "SU": "surprise",
}
"""Letters at the beginning of a file name's second part → expression."""

_NAME = re.compile(r"(?P<person>[A-Z]{2})\.(?P<expression>[A-Z]{2})\d+\.\d+")


class JAFFEReader(PeopleReader):
    """Reads JAFFE (Lyons, Akamatsu, Kamachi and Gyoba 1998), seven expressions.

    Layout: ``KA.AN1.39.tiff`` in one folder (256×256 pixels, grey): person, expression with a number, picture. The
    expression is the second part of the name, whatever letters the first one has. 213 pictures of 10 women. On request,
    for research alone. It cannot be tried here: it is read in its layout alone, made of drawn faces. No official split:
    with ``people`` of ten folds each woman is a fold.

    Args:
        root: folder of the pictures.
        people: which people are held out.
        label_space: as ``ListedPicturesReader``.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: there is no picture of such a name.
        ValueError: a setting is out of range.
    """

    title = "JAFFE (KA.AN1.39.tiff and so on)"
    release_space = LABEL_SPACES["basic7"]
    all_published = published("JAFFE")["all"]

    def _find(self) -> None:
        if not any(_NAME.fullmatch(path.stem.upper()) for path in self._root.iterdir()):
            raise self._missing("picture named like KA.AN1.39.tiff")

    def _list_all(self, bad: BadSamples) -> Listing:
        listing = Listing()
        for path in sorted(self._root.iterdir()):
            if path.suffix.lower() not in image_suffixes():
                listing.excluded["files of another kind"] += 1
                continue
            name = _NAME.fullmatch(path.stem.upper())
            if name is None or name["expression"] not in CODES:
                bad.add(f"{path}: found a name of another form, expected PERSON.EXPRESSION1.NUMBER such as KA.AN1.39")
                continue
            listing.pictures.append(ListedPicture(path, CODES[name["expression"]], path.name, group=name["person"]))
        return listing
