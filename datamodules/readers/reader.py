"""What every reader does: turn one layout on disk into the same rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from datamodules.rows.sample_table import SampleTable

Split = Literal["train", "val", "test"]
OnBadSample = Literal["error", "skip"]


class Reader(ABC):
    """Reads the splits of one data set.

    A constructor only checks, within a moment, that the data is there and has a known layout; reading happens in
    ``read``. A reader maps its own label codes to names (contract C2) and says in its docstring which release it reads.

    Attributes:
        label_space: ordered names of the expressions.
        labels: which of several labellings is read; None where there is one alone.
        wants_landmarks: whether the run needs the points of faces, where the data set has some; to read them may take
            long.
        wanted_size: side in pixels at which the run wants its faces, for readers of pictures of several sizes; None =
            as they are.
    """

    label_space: tuple[str, ...]
    labels: str | None = None
    wanted_size: int | None = None
    wants_landmarks: bool = False

    def source(self) -> dict[str, str | None]:
        """Returns what a checkpoint says of its data: the reader's class and its labelling."""
        return {"reader": type(self).__name__, "labels": self.labels}

    def has_split(self, split: Split) -> bool:
        """Whether there are rows of a split, as far as the layout tells; True where only reading would."""
        return True

    def fit_size(self, image_size: int) -> None:
        """Hears at which side in pixels the run wants its faces."""
        self.wanted_size = image_size

    def want_landmarks(self) -> None:
        """Hears that the run needs the points of faces."""
        self.wants_landmarks = True

    @abstractmethod
    def read(self, split: Split) -> SampleTable:
        """Returns all usable rows of one split.

        Raises:
            ValueError: the split is empty or missing, a column is missing, or a sample is bad and the reader was not
                asked to skip bad samples.
        """


class BadSamples:
    """Collects the bad samples of one split, so that the error or the report can count and name them.

    Args:
        on_bad_sample: "error" stops at ``settle``; "skip" leaves bad samples out.

    Raises:
        ValueError: any other mode.
    """

    def __init__(self, on_bad_sample: OnBadSample) -> None:
        check_on_bad_sample(on_bad_sample)
        self._mode = on_bad_sample
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Notes one bad sample: file or row, what was found, what was expected."""
        self._lines.append(line)

    def __len__(self) -> int:
        return len(self._lines)

    def settle(self, of: int) -> tuple[str, ...]:
        """Returns one line per bad sample that is left out.

        Args:
            of: number of rows read.

        Raises:
            ValueError: there are bad samples and the mode is "error"; one line with the first three and the count.
        """
        if self._lines and self._mode == "error":
            raise ValueError(
                f"{'; '.join(self._lines[:3])} ({len(self._lines)} bad of {of} samples; "
                "data.reader.init_args.on_bad_sample=skip goes on without them)"
            )
        return tuple(self._lines)


def check_on_bad_sample(on_bad_sample: str) -> None:
    """Checks the mode.

    Raises:
        ValueError: neither "error" nor "skip".
    """
    if on_bad_sample not in ("error", "skip"):
        raise ValueError(f"data.reader.init_args.on_bad_sample: found '{on_bad_sample}', expected 'error' or 'skip'")
