"""CK+48, the copy of CK+ that goes round as folders of small crops."""

from __future__ import annotations

import re

from datamodules.readers.folder_names import FolderNames
from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import ListedPicture, Listing
from datamodules.readers.people import HeldOutPeople
from datamodules.readers.people_reader import PeopleReader
from datamodules.readers.reader import BadSamples, OnBadSample
from datamodules.rows.image_files import find_class_files
from synfer.faces.expressions import EXPRESSIONS

_PERSON = re.compile(r"(S\d{3})_\d{3}_\d+")


class CK48Reader(PeopleReader):
    """Reads the copy "CK+48" of CK+ (Lucey and others 2010): three frames of each sequence, 48×48 pixels.

    Layout: ``<anger | contempt | disgust | fear | happy | sadness | surprise>/S010_004_00000017.png``; 981 pictures, no
    neutral ones. A random split has frames of one sequence on both sides, so it is split by the person in the name. The
    release itself is read by ``CKPlusReader``. For research alone, as the release. It cannot be tried here: it is read
    in its layout alone, made of drawn faces.

    Args:
        root: folder of the seven folders.
        people: which people are held out.
        class_map: as ``ImageFolderReader``: what folders mean that have other names, or numbers; null = leave it out.
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

    def __init__(
        self,
        root: str,
        people: HeldOutPeople = HeldOutPeople(),  # noqa: B008 (frozen)
        class_map: dict[str, str | None] | str | None = None,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        self._names = FolderNames(class_map)
        super().__init__(root, people, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        if not any(path.is_dir() and self._is_known(path.name) for path in self._root.iterdir()):
            raise self._missing("folder named by an expression")

    def _is_known(self, folder: str) -> bool:
        try:
            return self._names.expression(folder) is not None
        except ValueError:
            return False

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
                    expression = self._names.expression(folder.name)
                except ValueError as error:
                    bad.add(f"{file}: {error}")
                    continue
                if expression is None:
                    listing.excluded[f"class_map leaves out folder '{folder.name}'"] += 1
                    continue
                identity = file.relative_to(self._root).as_posix()
                listing.pictures.append(ListedPicture(file, expression, identity, group=person[1]))
        return listing
