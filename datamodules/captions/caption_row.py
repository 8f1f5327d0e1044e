"""A picture with its caption as a source finds it, before anything of it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from datamodules.captions.stored_image import StoredImage

USUAL_IMAGE = ("image", "file_name", "img")
USUAL_CAPTION = ("caption", "text")


@dataclass(frozen=True)
class CaptionColumns:
    """Which columns (of a JSON file: entries) of a set hold what.

    Attributes:
        image: the picture; None = a usual name (``image``, ``file_name``, ``img``).
        caption: the text; None = a usual name (``caption``, ``text``).
        label: the name of the expression; None = the set has none.
        sample_id: a name of the row; None = that of the picture's file, or its place in the set.
    """

    image: str | None = None
    caption: str | None = None
    label: str | None = None
    sample_id: str | None = None

    def among(self, names: list[str], where: str) -> CaptionColumns:
        """Returns the columns by the names that they have among these.

        Raises:
            ValueError: one is not there.
        """
        image = chosen_column("image", self.image, USUAL_IMAGE, names, where)
        caption = chosen_column("caption", self.caption, USUAL_CAPTION, names, where)
        for role, name in (("label", self.label), ("id", self.sample_id)):
            if name is not None:
                chosen_column(role, name, (), names, where)
        return CaptionColumns(image, caption, self.label, self.sample_id)


@dataclass(frozen=True)
class CaptionRow:
    """One row of a source.

    Attributes:
        name: what its picture is called; "" where it has no name.
        place: where it stands in the set, unique there.
        image: the picture, not yet read.
        caption: whatever stands for the text.
        label: whatever stands for the name of the expression; None = nothing.
        part: number of the file, or part of one, that is read at once.
        digest: what tells its picture from others without reading it; "" where only its pixels do.
    """

    name: str
    place: str
    image: StoredImage
    caption: Any
    label: Any = None
    part: int = 0
    digest: str = ""


@dataclass
class FoundRows:
    """What a source has found of one split.

    Attributes:
        rows: the rows.
        bad: one line for each that cannot be one.
        excluded: reason → files that are passed over.
    """

    rows: list[CaptionRow] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)


class CaptionSource(Protocol):
    """A set of pictures with captions in one layout.

    Attributes:
        splits: which of train, val and test have files of their own.
    """

    splits: tuple[str, ...]

    def rows(self, split: str) -> FoundRows:
        """Returns the rows of one of its splits, in the order of their places.

        Raises:
            ValueError: a file is damaged, or a column is missing.
        """
        ...


def chosen_column(role: str, wanted: str | None, usual: tuple[str, ...], names: list[str], where: str) -> str:
    """Returns the name that a column has among others.

    Args:
        role: what it holds, as in the key ``<role>_column``.
        wanted: its name; None = the first usual one that is there.
        usual: usual names.
        names: those that are there.
        where: that is, for the error.

    Raises:
        ValueError: it is not there.
    """
    for name in (wanted,) if wanted is not None else usual:
        if name in names:
            return name
    expected = f"'{wanted}'" if wanted is not None else " or ".join(f"'{name}'" for name in usual)
    raise ValueError(
        f"data.reader.init_args.{role}_column: found the columns {', '.join(names) or 'none'} in {where}, expected "
        f"{expected}"
    )
