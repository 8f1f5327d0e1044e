"""What happens to the pictures of a table before a run sees them: brought onto a template, and kept decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datamodules.readers.reader import Reader
from datamodules.rows.alignment import AlignedImages, Alignment, align_table
from datamodules.rows.cached_images import cached_table
from datamodules.rows.sample_table import SampleTable
from datamodules.setting_range import check_range


@dataclass(frozen=True)
class PreparedPictures:
    """The settings of a run about it.

    Attributes:
        alignment: how faces are brought onto a template.
        cache: folder in which pictures are kept decoded; None = they are not.
        cache_gb: bound on it, in 10⁹ bytes.

    Raises:
        ValueError: a bound that leaves no room.
    """

    alignment: Alignment
    cache: str | None
    cache_gb: float

    def __post_init__(self) -> None:
        check_range("decoded_cache_gb", self.cache_gb, self.cache_gb > 0, "a number above 0")

    def check_beside(self, image_size: int | str | None, synthetic_ratio: float, has_set: bool) -> None:
        """Checks what alignment needs beside it.

        Args:
            image_size: ``data.image_size``.
            synthetic_ratio: ``data.synthetic_ratio``.
            has_set: whether synthetic faces come from a finished set.

        Raises:
            ValueError: there is no size, or nobody says how synthetic faces lie.
        """
        self.alignment.check_beside(synthetic_ratio, has_set)
        has_side = image_size is not None or not self.alignment.is_on
        check_range("image_size", image_size, has_side, "a side in pixels, or model, with data.alignment")

    def tell(self, *readers: Reader | None) -> None:
        """Tells readers what is needed of them."""
        for reader in readers:
            if reader is not None and self.alignment.kind == "landmarks":
                reader.want_landmarks()

    def of(self, table: SampleTable, side: int | None, is_set: bool = False) -> SampleTable:
        """Returns the table with its pictures prepared.

        Args:
            table: rows of one split, or of a finished synthetic set.
            side: of the faces of the run, in pixels.
            is_set: whether they are those of ``data.synthetic_reader``, which may lie on the template already.

        Raises:
            ValueError: faces cannot be brought onto the template, or there is no side.
        """
        if self.alignment.is_on and (not is_set or self.alignment.synthetic == "align"):
            if side is None:
                raise ValueError(
                    "data.image_size=model: found a model of no size of its own, expected a side in pixels with "
                    "data.alignment"
                )
            table = align_table(table, self.alignment, side)
        if self.cache is None:
            return table
        names = table.images.names.tolist() if isinstance(table.images, AlignedImages) else None
        return cached_table(table, Path(self.cache), self.cache_gb, names)
