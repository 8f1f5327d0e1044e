"""CK+48, the copy of CK+ that goes round as folders of small crops."""

from __future__ import annotations

import re

from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import ListedPicture, Listing
from datamodules.readers.people_reader import PeopleReader
from datamodules.readers.reader import BadSamples
from datamodules.rows.image_files import find_class_files
from synfer.faces.expressions import EXPRESSIONS, canonical_expression

_PERSON = re.compile(r"(S\d{3})_\d{3}_\d+")


class CK48Reader(PeopleReader):
    """Reads the copy "CK+48" of CK+ (Lucey and others 2010): three frames of each sequence, 48×48 pixels.

    Layout: ``<anger | contempt | disgust | fear | happy | sadness | surprise>/S010_004_00000017.png``; 981 pictures,
    no neutral ones. A random split has frames of one sequence on both sides, so it is split by the person in the name.
    The release itself is read by ``CKPlusReader``. For research alone.

    Args:
        root: folder of the seven folders.
        people: which people are held out.
        label_space: as ``ListedPicturesReader``.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: there is no folder of an expression.
        ValueError: a setting is out of range.
    """

    title = "CK+48 (folders anger … surprise with S010_004_00000017.png)"
    release_space = EXPRESSIONS[1:]
    all_published = published("CK+48")["all"]

    def _find(self) -> None:
        if not any(path.is_dir() and path.name.lower() in ("anger", "surprise") for path in self._root.iterdir()):
            raise self._missing("folder named by an expression")

    def _list_all(self, bad: BadSamples) -> Listing:
        found, listing = find_class_files(self._root), Listing()
        listing.excluded.update(found.reasons(self._root))
        for folder, files in found.images.items():
            for file in files:
                person = _PERSON.fullmatch(file.stem.upper())
                if person is None:
                    bad.add(f"{file}: found a name without a person, expected one such as S010_004_00000017.png")
                    continue
                listing.groups.add(person[1])
                try:
                    expression = canonical_expression(folder.name)
                except ValueError as error:
                    bad.add(f"{file}: {error}")
                    continue
                identity = file.relative_to(self._root).as_posix()
                listing.pictures.append(ListedPicture(file, expression, identity, group=person[1]))
        return listing
