"""Readers of data sets that name the people shown and have no official split."""

from __future__ import annotations

from abc import abstractmethod

from datamodules.readers.listed_pictures import ListedPicturesReader, Listing
from datamodules.readers.people import HeldOutPeople
from datamodules.readers.reader import BadSamples, OnBadSample, Split


class PeopleReader(ListedPicturesReader):
    """Reads a data set of known people; a subclass lists all of its pictures.

    Args:
        root: folder of the data set.
        people: which of them are held out.
        label_space: as ``ListedPicturesReader``.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the data set is not there.
        ValueError: a setting is out of range.
    """

    splits = ("train", "val", "test")
    all_published: int | None = None
    """Number of labelled pictures of the whole release."""

    def __init__(
        self,
        root: str,
        people: HeldOutPeople = HeldOutPeople(),  # noqa: B008 (frozen)
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        self._people = people
        super().__init__(root, label_space, image_size, on_bad_sample)

    @abstractmethod
    def _list_all(self, bad: BadSamples) -> Listing:
        """Returns all pictures, each with the person as its group."""

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        listing = self._list_all(bad)
        if self.all_published is not None:
            self._compare("all splits", len(listing.pictures) + len(bad), self.all_published)
        return self._people.choose(listing, split)
