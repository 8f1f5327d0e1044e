"""Oulu-CASIA, sequences under two cameras and three lights."""

from __future__ import annotations

from typing import Literal

from datamodules.readers.folder_names import FolderNames
from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import Listing
from datamodules.readers.people import HeldOutPeople
from datamodules.readers.people_reader import PeopleReader
from datamodules.readers.posed_sequences import PosedSequences
from datamodules.readers.reader import BadSamples, OnBadSample
from synfer.faces.expressions import LABEL_SPACES

_CROPPED = ("PreProcess Img", "PreProcess_Img", "B_PreProcess Img", "B_PreProcess_Img")
"""Spellings of the folder of cropped faces in copies of the data set."""


class OuluCASIAReader(PeopleReader):
    """Reads Oulu-CASIA NIR&VIS (Zhao and others 2011): the last frames of each sequence, and its first as neutral.

    Layout: ``OriginalImg/<VL | NI>/<Strong | Weak | Dark>/P001/<Anger | Disgust | Fear | Happiness | Sadness |
    Surprise>/000.jpeg``; cropped faces lie in ``PreProcess Img/VL_Acropped/Strong/…``, whose first folder has four
    spellings. Six expressions, 80 people; an unknown folder is an error. A camera and a light have 480 sequences, with
    the settings of papers 1,920 pictures. On request, for research alone. It cannot be tried here: it is read in its
    layout alone, made of drawn faces. No official split: folds by person, 10 of them as papers do.

    Args:
        root: folder with ``OriginalImg`` or ``PreProcess Img``.
        images: "cropped", or "original" with much around the face.
        camera: VL visible light, NI near infrared.
        light: Strong, Weak or Dark.
        last_frames: of each sequence, as its expression.
        first_as_neutral: whether its first frame is read too, as neutral.
        people: which people are held out.
        class_map: as ``ImageFolderReader``: what folders mean that have other names, or numbers; null = leave it out.
        label_space: as ``ListedPicturesReader``.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a setting is out of range.
    """

    title = "Oulu-CASIA (OriginalImg or 'PreProcess Img', camera, light, P001 …)"
    release_space = LABEL_SPACES["basic7"]

    def __init__(
        self,
        root: str,
        images: Literal["cropped", "original"] = "cropped",
        camera: Literal["VL", "NI"] = "VL",
        light: Literal["Strong", "Weak", "Dark"] = "Strong",
        last_frames: int = 3,
        first_as_neutral: bool = True,
        people: HeldOutPeople = HeldOutPeople(),  # noqa: B008 (frozen)
        class_map: dict[str, str | None] | str | None = None,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        known = {"images": (images, ("cropped", "original")), "camera": (camera, ("VL", "NI"))}
        for name, (found, expected) in {**known, "light": (light, ("Strong", "Weak", "Dark"))}.items():
            if found not in expected:
                raise ValueError(f"data.reader.init_args.{name}: found '{found}', expected {' or '.join(expected)}")
        self._names = FolderNames(class_map)
        self._images, self._camera, self._light = images, camera, light
        self._frames = PosedSequences(last_frames, first_as_neutral)
        sequences = published("Oulu-CASIA, sequences of a camera and a light")["all"]
        self.all_published = sequences * (last_frames + int(first_as_neutral))
        super().__init__(root, people, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        if self._images == "original":
            places = [self._root / "OriginalImg" / self._camera]
        else:
            places = [self._root / name / f"{self._camera}_Acropped" for name in _CROPPED]
        present = [place / self._light for place in places if (place / self._light).is_dir()]
        if not present:
            raise self._missing(f"folder {(places[0] / self._light).relative_to(self._root)}")
        self._base = present[0]

    def _list_all(self, bad: BadSamples) -> Listing:
        listing = Listing()
        for sequence in sorted(path for path in self._base.glob("P*/*") if path.is_dir()):
            listing.groups.add(sequence.parent.name)
            frames = sorted(path for path in sequence.iterdir() if path.suffix.lower() in (".jpeg", ".jpg"))
            try:
                expression = self._names.expression(sequence.name)
            except ValueError as error:
                bad.add(f"{sequence}: {error}")
                continue
            if expression is None:
                listing.excluded[f"class_map leaves out folder '{sequence.name}'"] += len(frames)
                continue
            self._frames.add(listing, sequence, frames, expression, self._base, bad)
        return listing
