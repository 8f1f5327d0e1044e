"""SFEW 2.0, still faces from films."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from datamodules.readers.folder_names import FolderNames
from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from synfer.faces.expressions import LABEL_SPACES

_FOLDERS = {
    "train": ("Train/Train_Aligned_Faces", "Train/imgs"),
    "val": ("Val/Val_Aligned_Faces_new", "Val/Val_Aligned_Faces", "Val/imgs"),
}


class SFEWReader(ListedPicturesReader):
    """Reads SFEW 2.0 (Dhall and others 2011, 2015), seven expressions.

    Layout: ``Train/Train_Aligned_Faces/<Angry | Disgust | Fear | Happy | Neutral | Sad | Surprise>/*.png`` (143×181
    pixels) and ``Val/Val_Aligned_Faces`` or ``…_new``; copies name the folders ``imgs``, or the expressions Happiness
    and Sadness. A folder of another name is an error. Splits: train 958, val 436; the 372 test faces have no labels,
    and papers test on val. On request, for research alone; it does not say who is shown. It cannot be tried here: it is
    read in its layout alone, made of drawn faces.

    Args:
        root: folder with ``Train`` and ``Val``.
        class_map: as ``ImageFolderReader``: what folders mean that have other names, or numbers; null = leave it out.
        label_space: as ``ListedPicturesReader``.
        image_size: as there; the faces are no squares.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the faces of a split are missing.
    """

    title = "SFEW 2.0 (Train/Train_Aligned_Faces and Val/Val_Aligned_Faces)"
    release_space = LABEL_SPACES["basic7"]
    splits = ("train", "val")
    published: ClassVar = published("SFEW 2.0")

    def __init__(
        self,
        root: str,
        class_map: dict[str, str | None] | str | None = None,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        self._names = FolderNames(class_map)
        super().__init__(root, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        self._folders: dict[str, Path] = {}
        for split, names in _FOLDERS.items():
            present = [self._root / name for name in names if (self._root / name).is_dir()]
            if not present:
                raise self._missing(f"folder {' or '.join(names)}")
            self._folders[split] = present[0]

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        return self._list_class_folders(self._folders[split], self._names.expression, bad)
