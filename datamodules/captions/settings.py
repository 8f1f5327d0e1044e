"""What the captions of a run may say, and where written ones are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datamodules.setting_range import check_range


@dataclass(frozen=True)
class CaptionSettings:
    """The policy for captions of real rows, those of the data set and those from templates alike.

    Attributes:
        mention_expression: whether they may name the expression. false takes the words out ("happy", "smiling", …): for
            a generator that is to listen to action units.
        action_units: whether a sentence of the known action units is added ("Slightly raised inner brows.").
        path: a table of captions (Parquet or CSV with ``sample_id`` and ``caption``) whose captions take the place of
            the rows' own; null = none.

    Raises:
        FileNotFoundError: no such table.
    """

    mention_expression: bool = True
    action_units: bool = False
    path: str | None = None

    def __post_init__(self) -> None:
        if self.path is not None and not Path(self.path).is_file():
            raise FileNotFoundError(f"data.captions.path '{self.path}': no such file, expected a table of captions")

    @property
    def is_default(self) -> bool:
        """Whether captions stay as they are."""
        return self == CaptionSettings()

    def check_beside(self, synthetic_ratio: float) -> None:
        """Refuses a policy where synthetic samples, whose captions it does not reach, are in the batches.

        Raises:
            ValueError: a policy beside synthetic samples.
        """
        expected = f"the defaults beside data.synthetic_ratio={synthetic_ratio:g}: made faces keep their captions"
        check_range("captions", self, self.is_default or synthetic_ratio == 0, expected)
