"""The synthetic-data challenge of ABAW4: made faces to learn from, real ones to score on."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from datamodules.readers.folder_names import FolderNames
from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from datamodules.rows.sample_table import SampleTable
from synfer.faces.expressions import EXPRESSIONS

_FOLDERS: dict[Split, str] = {"train": "training_set_synthetic_images", "val": "validation_set_real_images"}
_SPELLINGS = {"angrer": "anger", "angere": "anger"}  # as the release, and a loader of it, write ANGER


class LSDReader(ListedPicturesReader):
    """Reads the set of ABAW4's challenge "learning from synthetic data" (Kollias 2022), six expressions.

    Layout: ``training_set_synthetic_images/<ANGRER | DISGUST | FEAR | HAPPINESS | SADNESS | SURPRISE>/*.jpg`` and
    ``validation_set_real_images/<…>/*.jpg``; the folder of anger is called ANGRER or ANGERE. A folder of another name
    is an error. There is no neutral face.

    The training faces are SYNTHETIC (frames of Aff-Wild2 whose expression was changed), those of val real, and each
    row says so. As ``data.reader`` a run learns from made faces alone and is scored on real ones, as in the challenge;
    as ``data.synthetic_reader`` the training faces stand beside the real ones of another reader. They show people of
    Aff-Wild2: beside that set, or scored on it, they leak.

    Splits: train 277,251 (anger 18,286, disgust 15,150, fear 10,923, happy 73,285, sad 144,631, surprise 14,976) and
    val 4,670; the labels of the test faces are kept back. On request, under the agreement of Aff-Wild2, for research
    alone. It cannot be tried here: it is read in its layout alone, made of drawn faces.

    Args:
        root: folder with ``training_set_synthetic_images`` and ``validation_set_real_images``.
        class_map: as ``ImageFolderReader``: what folders mean that have other names, or numbers; null = leave it out.
        label_space: as ``ListedPicturesReader``; None = the six.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: a folder is missing.
    """

    title = f"ABAW4's synthetic-data set ({' and '.join(_FOLDERS.values())})"
    release_space = EXPRESSIONS[1:7]
    splits = ("train", "val")
    published: ClassVar = published("ABAW4's synthetic-data set")

    def __init__(
        self,
        root: str,
        class_map: dict[str, str | None] | str | None = None,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        self._names = FolderNames(class_map if isinstance(class_map, str) else {**_SPELLINGS, **(class_map or {})})
        super().__init__(root, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        for name in _FOLDERS.values():
            if not (self._root / name).is_dir():
                raise self._missing(f"folder {name}")

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of one split, those of train marked as synthetic; see ``ListedPicturesReader.read``."""
        return replace(super().read(split), is_synthetic=split == "train")

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        return self._list_class_folders(self._root / _FOLDERS[split], self._expression, bad)

    def _expression(self, folder: str) -> str | None:
        """Returns the expression of a class folder, by its whole name; None where the map leaves it out."""
        name = self._names.expression(folder)
        if name is not None and name not in self.release_space:
            raise ValueError(f"found the folder '{folder}', expected one of {', '.join(self.release_space)}")
        return name
