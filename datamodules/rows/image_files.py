"""The images in a folder: every file is found, or counted with the reason why it is none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from synfer.foundation.paused_collector import paused_collector

_NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
"""Formats of Pillow that hold no photograph, need another program (EPS runs one), or are names without a decoder."""


@cache
def image_suffixes() -> frozenset[str]:
    """Returns the endings, in lower case, of the image files that Pillow can open here."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(end for end, kind in known if kind in Image.OPEN and kind not in _NO_PICTURES)


@dataclass
class ClassFiles:
    """The files of one split.

    Attributes:
        images: folder of a class → its images, deeper and linked folders included, sorted.
        left_out: reason → the other files.
    """

    images: dict[Path, list[Path]] = field(default_factory=dict)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of files of both kinds."""
        return sum(map(len, (*self.images.values(), *self.left_out.values())))

    def reasons(self, root: Path) -> dict[str, int]:
        """Returns reason → count for a ``ReadReport``; each reason names its first three files below ``root``."""
        return {f"{why} ({_first_three(paths, root)})": len(paths) for why, paths in self.left_out.items()}

    def leave_out(self, reason: str, *files: Path) -> None:
        """Notes files that are not read."""
        if files:
            self.left_out.setdefault(reason, []).extend(files)


def find_class_files(folder: Path) -> ClassFiles:
    """Finds the images of one split, ``<class>/**``; no folder is read twice, whatever the links."""
    found = ClassFiles()
    seen: set[str] = set()
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            found.leave_out("hidden", *_files_below(path))
        elif path.is_dir():
            if _is_new(path, seen, found):
                found.images[path] = []
        elif path.suffix.lower() in image_suffixes():
            found.leave_out("beside the class folders", path)
        else:
            found.leave_out(_no_image(path), path)
    with paused_collector():
        for group in found.images:
            _walk(group, found.images[group], seen, found)
    return found


def find_images(folder: Path) -> ClassFiles:
    """Finds the images anywhere below a folder, in its own order whatever the machine: ``images[folder]``.

    No folder is read twice, whatever the links; every other file is counted with the reason.
    """
    found = ClassFiles(images={folder: []})
    with paused_collector():
        _walk(folder, found.images[folder], {os.path.realpath(folder)}, found)
    return found


def names_below(paths: Sequence[Path], root: Path) -> list[str]:
    """Returns the names of files as seen from a folder that they lie in, with slashes."""
    start, told = os.fspath(root / "_")[:-1], [os.fspath(path) for path in paths]
    if os.sep != "/" or not all(name.startswith(start) for name in told):
        return [path.relative_to(root).as_posix() for path in paths]
    return [name[len(start) :] for name in told]  # a fifth of the time, which counts with 100,000 files


def split_folders(root: Path, names: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Returns the folder of each split, whatever the case of its name.

    Args:
        root: of the data set.
        names: split → names, in lower case, that its folder may have.

    Raises:
        ValueError: two folders are there for one split.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    chosen: dict[str, Path] = {}
    for split, known in names.items():
        present = [path for path in folders if path.name.lower() in known]
        if len(present) > 1:
            raise ValueError(
                f"data.reader.init_args.root: found the folders {' and '.join(path.name for path in present)} for one "
                f"split in '{root}', expected one of them (merge them, or move one elsewhere)"
            )
        if present:
            chosen[split] = present[0]
    return chosen


def _walk(folder: Path, images: list[Path], seen: set[str], found: ClassFiles) -> None:
    known = image_suffixes()
    with os.scandir(folder) as entries:  # knows plain files without asking the disk about each, which takes seconds
        plain = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        name = path.name
        if name.startswith("."):
            found.leave_out("hidden", *_files_below(path))
        elif name not in plain and path.is_dir():
            if _is_new(path, seen, found):
                _walk(path, images, seen, found)
        elif name not in plain and not path.exists():
            found.leave_out("a link to nothing", path)
        elif path.suffix.lower() in known:
            images.append(path)
        else:
            found.leave_out(_no_image(path), path)


def _is_new(folder: Path, seen: set[str], found: ClassFiles) -> bool:
    real = os.path.realpath(folder)
    if real in seen:
        found.leave_out("a link to a folder that is read already", folder)
        return False
    seen.add(real)
    return True


def _no_image(path: Path) -> str:
    return f"no image that can be opened here, by its suffix '{path.suffix}'"


def _files_below(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(Path(top, name) for top, _, names in os.walk(path) for name in names)


def _first_three(paths: Sequence[Path], root: Path) -> str:
    names = ", ".join(path.relative_to(root).as_posix() for path in paths[:3])
    return names + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
