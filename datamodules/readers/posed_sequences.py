"""Sequences that lead from a neutral face to an expression: their last frames are read, and their first as neutral."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.readers.listed_pictures import ListedPicture, Listing
from datamodules.readers.reader import BadSamples


@dataclass(frozen=True)
class PosedSequences:
    """Which frames of a sequence are read.

    Attributes:
        last_frames: at its end, as its expression.
        first_as_neutral: whether its first frame is read too, as neutral.

    Raises:
        ValueError: no last frame.
    """

    last_frames: int
    first_as_neutral: bool

    def __post_init__(self) -> None:
        if self.last_frames < 1:
            raise ValueError(f"data.reader.init_args.last_frames: found {self.last_frames}, expected at least 1")

    def add(
        self, listing: Listing, sequence: Path, frames: Sequence[Path], expression: str, root: Path, bad: BadSamples
    ) -> None:
        """Adds a sequence's frames to a listing; one that is too short goes to ``bad``.

        Args:
            listing: what is added to.
            sequence: folder of the sequence, in the folder of the person.
            frames: its frames, in their order.
            expression: canonical name.
            root: folder that sample ids start from.
            bad: hears of a sequence that is too short.
        """
        first = int(self.first_as_neutral)
        if len(frames) < first + self.last_frames:
            bad.add(f"{sequence}: found {len(frames)} frames, expected at least {first + self.last_frames}")
            return
        chosen = [(frames[0], "neutral")] * first + [(frame, expression) for frame in frames[-self.last_frames :]]
        for frame, name in chosen:
            identity, person = frame.relative_to(root).as_posix(), sequence.parent.name
            listing.pictures.append(ListedPicture(frame, name, identity, group=person))
        listing.excluded["frames between the first and the last ones"] += len(frames) - len(chosen)
