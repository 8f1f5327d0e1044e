"""FERV39k, clips of faces, read as frames."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from datamodules.readers.folder_names import FolderNames
from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import ListedPicture, ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from datamodules.rows.image_files import image_suffixes
from synfer.faces.expressions import LABEL_SPACES

_CLIPS, _SETUPS = "2_ClipsforFaceCrop", "4_setups"


class FERV39kReader(ListedPicturesReader):
    """Reads FERV39k (Wang and others 2022), seven expressions: frames of its clips, spread evenly over each.

    Layout: ``2_ClipsforFaceCrop/<scene>/<Happy …>/0015/*.jpg`` and ``4_setups/All_scenes/{train,test}_All.csv`` with
    lines of a clip's path and its expression's NAME, parted by a blank; a third number, as derived lists have, is
    passed over. Splits: train 31,088 and test 7,847 clips, and papers select on test. On request by mail, not for
    commercial use; it says nothing of who is shown, and a clip is a group. It cannot be tried here: it is read in its
    layout alone, made of drawn faces.

    Args:
        root: folder with ``2_ClipsforFaceCrop`` and ``4_setups``.
        frames_per_clip: how many, at the middles of as many equal parts of the clip.
        class_map: as ``ImageFolderReader``, for lists that write other names, or numbers ("ferv39k").
        label_space: as ``ListedPicturesReader``.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the lists or the clips are missing.
        ValueError: a setting is out of range.
    """

    title = "FERV39k (2_ClipsforFaceCrop and 4_setups/All_scenes)"
    release_space = LABEL_SPACES["basic7"]
    splits = ("train", "test")
    clips: ClassVar = published("FERV39k, clips")

    def __init__(
        self,
        root: str,
        frames_per_clip: int = 1,
        class_map: dict[str, str | None] | str | None = None,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        if frames_per_clip < 1:
            raise ValueError(f"data.reader.init_args.frames_per_clip: found {frames_per_clip}, expected at least 1")
        self._frames, self._names = frames_per_clip, FolderNames(class_map)
        super().__init__(root, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        self._clips, lists = self._root / _CLIPS, self._root / _SETUPS / "All_scenes"
        if not self._clips.is_dir():
            raise self._missing(f"folder {_CLIPS}")
        self._lists: dict[Split, Path] = {split: lists / f"{split}_All.csv" for split in self.splits}
        for path in self._lists.values():
            if not path.is_file():
                raise self._missing(f"list {path.relative_to(self._root)}")

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        listing, path, clips = Listing(), self._lists[split], 0
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            words = line.replace(",", " ").split()
            if not words:
                continue
            clips += 1
            where = f"{path}, line {number}"
            if len(words) not in (2, 3):
                bad.add(f"{where}: found '{line}', expected a clip's path and an expression")
                continue
            try:
                expression = self._names.expression(words[1])
                if expression is None:
                    listing.excluded[f"clips that class_map leaves out as '{words[1]}'"] += 1
                else:
                    self._add(listing, words[0], expression)
            except ValueError as error:
                bad.add(f"{where}: {error}")
        self._compare(f"split '{split}', clips", clips, self.clips[split])
        return listing

    def _add(self, listing: Listing, clip: str, expression: str) -> None:
        folder = self._clips / clip
        if not folder.is_dir():
            raise ValueError(f"found no clip '{clip}' in {self._clips}, expected a folder of frames")
        frames = sorted(path for path in folder.iterdir() if path.suffix.lower() in image_suffixes())
        if not frames:
            raise ValueError(f"found no frame in {folder}, expected some")
        number = min(self._frames, len(frames))
        for part in range(number):
            frame = frames[(2 * part + 1) * len(frames) // (2 * number)]
            identity = frame.relative_to(self._clips).as_posix()
            listing.pictures.append(ListedPicture(frame, expression, identity, group=clip))
        listing.excluded["further frames of the clips"] += len(frames) - number
