"""Image folders: one folder per expression, in one per split where there are splits."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import numpy as np

from datamodules.readers.folder_names import FolderNames
from datamodules.readers.good_pictures import good_pictures
from datamodules.readers.known_sets import say_what_it_is
from datamodules.readers.reader import BadSamples, OnBadSample, Reader, Split, check_on_bad_sample
from datamodules.rows.image_files import find_class_files, names_below, split_folders
from datamodules.rows.images import FileImages
from datamodules.rows.sample_table import ReadReport, SampleTable, one_hot
from synfer.faces.expressions import EXPRESSIONS, resolve_label_space

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_INSTEAD = {
    "train": "",
    "val": ", or --data.val_fraction 0.1 to hold a tenth of the training rows out",
    "test": " (validate scores the validation rows)",
}
"""What to do without a folder of a split, for the error."""


class ImageFolderReader(Reader):
    """Reads ``<root>/<split>/<expression>/*.jpg|png`` (and all else that Pillow can open, and deeper folders).

    Without folders of splits, ``<root>/<expression>`` are training rows (``data.val_fraction`` holds some out). Reads
    no particular release: RAF-DB, AffectNet, SFEW and others fit once their files are sorted into folders, named by
    expression ("happiness", "angry" and "joy" are understood) or by number, whose order differs between releases:
    ``class_map`` says which. Where the numbers of pictures are those of a known copy, or those of a release under other
    names, a warning says so (``known_sets.py``). Linked folders are entered. Hidden files and folders (the copies that
    editors keep), files of other kinds and pictures beside the folders of expressions are left out, and counted with
    reason in ``table.report.excluded``. Images stay on disk and are decoded when asked for; ``read`` decodes each once
    to check and to hash it.

    Args:
        root: folder of the data set.
        label_space: "basic7", "ferplus8" or a list of names; None = the expressions that have a folder, in canonical
            order. Images of an expression outside it are left out and counted in ``table.report.excluded``.
        image_size: side in pixels; the central square is cut and resized to it. None = ``data.image_size``, and where
            that is None too, all images have one size.
        class_map: what the folders mean that are not named by expression: "rafdb" (1…7), "affectnet" (0…7), "fer2013"
            (0…6), "ckplus", "ferv39k", "alphabetical7" or "alphabetical8", or folder → expression, null = leave it out.
        on_bad_sample: "error", or "skip" to leave bad samples out (counted and named in ``table.report``).

    Raises:
        FileNotFoundError: ``root`` is missing or holds no split folder.
        ValueError: the label space is not known, two folders are there for one split, or one is a number of which
            ``class_map`` says nothing.
    """

    def __init__(
        self,
        root: str,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
        class_map: dict[str, str | None] | str | None = None,
    ) -> None:
        check_on_bad_sample(on_bad_sample)
        self._names = FolderNames(class_map)
        if image_size is not None and image_size < 1:
            raise ValueError(f"data.reader.init_args.image_size: found {image_size}, expected at least 1 or null")
        self._root, self._given_size, self._on_bad_sample = Path(root), image_size, on_bad_sample
        if not self._root.is_dir():
            raise FileNotFoundError(
                f"data.reader.init_args.root: found no folder '{root}', expected image folders there"
            )
        self._folders = split_folders(self._root, SPLIT_FOLDERS)
        if not self._folders and len(self._expressions_in(self._root)) > 1:
            self._folders = {"train": self._root}
        inside = [group for folder in self._folders.values() or [self._root] for group in _folders_in(folder)]
        self._names.refuse_unexplained_numbers(inside, self._root)
        if not self._folders:
            present = ", ".join(sorted(f.name for f in self._root.iterdir() if f.is_dir()))
            raise FileNotFoundError(
                f"data.reader.init_args.root: found no split in '{root}' (folders: {present or 'none'}), "
                "expected <expression>/*.jpg or train/<expression>/*.jpg (and val/, test/), of two expressions or more"
            )
        self.label_space = self._present_expressions() if label_space is None else resolve_label_space(label_space)

    def has_split(self, split: Split) -> bool:
        """Whether there is a folder of a split."""
        return split in self._folders

    @property
    def _image_size(self) -> int | None:
        return self._given_size or self.wanted_size

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of one split; the images are read when asked for.

        Raises:
            ValueError: the split has no folder or no image, a folder is named after no expression, or an image is bad
                (unless skipped).
        """
        folder = self._folders.get(split)
        if folder is None:
            raise ValueError(
                f"{self._root}: found no folder for split '{split}' (found {', '.join(self._folders)}), "
                f"expected {SPLIT_FOLDERS[split][0]}/<expression>{_INSTEAD[split]}"
            )
        bad, excluded, counts = BadSamples(self._on_bad_sample), dict[str, int](), Counter[str]()
        paths: list[Path] = []
        labels: list[int] = []
        files_found = find_class_files(folder)
        excluded.update(files_found.reasons(self._root))
        found = files_found.total
        for group, files in files_found.images.items():
            try:
                name = self._names.expression(group.name)
            except ValueError as error:
                for file in files:
                    bad.add(f"{file}: {error}")
                continue
            if name is not None:
                counts[name] += len(files)
            if name is None:
                excluded[f"class_map leaves out folder '{group.name}'"] = len(files)
            elif name in self.label_space:
                paths += files
                labels += [self.label_space.index(name)] * len(files)
            elif files:
                reason = f"expression '{name}' is outside the label space"
                excluded[reason] = excluded.get(reason, 0) + len(files)
        say_what_it_is(f"{folder}", counts)
        good, hashes = good_pictures(paths, self._root, self._image_size, bad)
        skipped = bad.settle(of=found)
        if not good:
            raise ValueError(
                f"{folder}: found no usable image ({found} files, {len(skipped)} bad, {sum(excluded.values())} left "
                "out by rule), expected at least one"
            )
        label = np.array(labels, dtype=np.int64)[good]
        return SampleTable(
            images=FileImages([paths[index] for index in good], self._image_size),
            label=label,
            soft_label=one_hot(label, len(self.label_space)),
            sample_id=np.array(names_below([paths[index] for index in good], self._root)),
            content_hash=np.array(hashes),
            label_space=self.label_space,
            split=split,
            report=ReadReport(read=found, skipped=skipped, excluded=excluded),
        )

    def _present_expressions(self) -> tuple[str, ...]:
        present = set[str]().union(*(self._expressions_in(folder) for folder in self._folders.values()))
        if len(present) < 2:
            raise FileNotFoundError(
                f"data.reader.init_args.root: found folders of {len(present)} expressions in '{self._root}', expected "
                "at least two (<split>/<expression>/*.jpg or *.png)"
            )
        return tuple(name for name in EXPRESSIONS if name in present)

    def _expressions_in(self, folder: Path) -> set[str]:
        """Returns the expressions that have a folder; ``read`` names other folders together with their files."""
        found = set()
        for group in _folders_in(folder):
            with contextlib.suppress(ValueError):
                found.add(self._names.expression(group.name))
        return {name for name in found if name is not None}


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
