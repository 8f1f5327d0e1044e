"""Splits of data sets that have none: people are held out, never pictures."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.readers.listed_pictures import Listing
from datamodules.readers.reader import Split


@dataclass(frozen=True)
class HeldOutPeople:
    """Folds by person for a data set without official splits.

    People are sorted by their names and dealt to the folds in turn, person i to fold i mod ``folds`` ("every tenth
    person", the usual protocol of CK+ and Oulu-CASIA): the same on every machine, whatever pictures are bad.

    Attributes:
        folds: how many.
        val: the fold, from 0, that validation reads; null = that of ``test``.
        test: the fold that is tested.

    Raises:
        ValueError: fewer than two folds, or a fold that is none of them.
    """

    folds: int = 10
    val: int | None = None
    test: int = 0

    def __post_init__(self) -> None:
        key = "data.reader.init_args.people"
        if self.folds < 2:
            raise ValueError(f"{key}.folds: found {self.folds}, expected at least 2")
        for name, fold in (("val", self.val), ("test", self.test)):
            if fold is not None and not 0 <= fold < self.folds:
                raise ValueError(f"{key}.{name}: found {fold}, expected a fold from 0 to {self.folds - 1}")

    def choose(self, listing: Listing, split: Split) -> Listing:
        """Returns the pictures of one split.

        Raises:
            ValueError: fewer people than folds.
        """
        people = sorted(listing.groups | {str(picture.group) for picture in listing.pictures})
        if len(people) < self.folds:
            raise ValueError(
                f"data.reader.init_args.people.folds: found {self.folds} folds for {len(people)} people, expected at "
                "most as many"
            )
        fold_of = {person: place % self.folds for place, person in enumerate(people)}
        held_out = {"test": {self.test}, "val": {self.test if self.val is None else self.val}}
        away = held_out["test"] | held_out["val"]
        chosen = set(range(self.folds)) - away if split == "train" else held_out[split]
        kept = [picture for picture in listing.pictures if fold_of[str(picture.group)] in chosen]
        excluded = listing.excluded.copy()
        excluded["of people of other splits"] += len(listing.pictures) - len(kept)
        return Listing(kept, +excluded)
