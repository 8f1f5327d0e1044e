"""Whoever says on the page what a face shows: a judge, and voters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.rows.alignment_record import in_words
from datamodules.rows.images import check_not_constant, read_image
from experiments.command_line.project import shipped
from experiments.sample.face_maker import FaceMaker
from lightning_modules.voter import load_voter
from synfer.foundation.on_rank_zero import warn_on_rank_zero
from synfer.labels.voters import Voter
from synfer.networks.feature_extractor import backbone_fingerprint, name_of_checkpoint


@dataclass(frozen=True)
class Reading:
    """What one reader sees in one face.

    Attributes:
        reader: its title: "judge", or a voter's name.
        probabilities: by expression, in the order of its label space; they sum to 1.
    """

    reader: str
    probabilities: dict[str, float]

    @property
    def chosen(self) -> str:
        """The most probable expression."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


class FaceReaders:
    """A judge and any number of voters.

    Args:
        judge: its checkpoint or folder; None = there is none.
        voters: theirs.
        maker: whose faces they are to read; None = nobody's.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: nothing that reads faces, or a judge that guides the generator.
    """

    def __init__(self, judge: str | None, voters: Sequence[str] = (), maker: FaceMaker | None = None) -> None:
        self.readers: dict[str, Voter] = {}
        if judge is not None:
            network = load_voter(shipped(judge)).network
            self._refuse_the_guide(network, judge, maker)
            self._tell_of_alignment(network, f"--judge '{judge}'")
            self.readers["judge"] = network
        for path in voters:
            name = f"voter {name_of_checkpoint(path)}"
            if name in self.readers:
                name = f"voter {path}"
            self.readers[name] = load_voter(shipped(path)).network
            self._tell_of_alignment(self.readers[name], f"--voter '{path}'")

    @staticmethod
    def _tell_of_alignment(network: Voter, where: str) -> None:
        record = getattr(network, "face_alignment", None)
        if record:
            warn_on_rank_zero(
                f"{where}: found a classifier whose training faces were {in_words(record)}, expected a generator that "
                "has learned from such faces: those on the page are shown to it as they are made"
            )

    @staticmethod
    def _refuse_the_guide(judge: Voter, path: str, maker: FaceMaker | None) -> None:
        guide = None if maker is None else maker.guide
        if guide is None:
            return
        own = backbone_fingerprint(judge)  # type: ignore[arg-type]
        if judge.weights_fingerprint() == guide.weights_fingerprint() or own == backbone_fingerprint(guide) is not None:
            raise ValueError(
                f"--judge '{path}' is the guide's own network: a judge must be independent of it, expected another "
                "classifier"
            )

    def __len__(self) -> int:
        return len(self.readers)

    @torch.no_grad()
    def read(self, images: Tensor) -> list[list[Reading]]:
        """Returns what each reader sees in each of some faces, uint8 (n, 3, H, W) in RGB.

        Raises:
            ValueError: images of another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"faces: found {images.dtype} {tuple(images.shape)}, expected uint8 (n, 3, H, W)")
        found: list[list[Reading]] = [[] for _ in images]
        for title, network in self.readers.items():
            probabilities = network.predict_probabilities(images.float() / 255)
            for readings, row in zip(found, probabilities.tolist(), strict=True):
                readings.append(Reading(title, dict(zip(network.label_space, row, strict=True))))
        return found

    def read_file(self, path: str | Path) -> list[Reading]:
        """Returns what each reader sees in an image file, of which it takes the central square.

        Raises:
            ValueError: no image, or one that shows nothing.
        """
        return self.read(as_faces(path))[0]


def as_faces(path: str | Path) -> Tensor:
    """Returns an image file as uint8 (1, 3, H, W), RGB, upright.

    Raises:
        ValueError: no image, or one that shows nothing.
    """
    image = read_image(Path(path))
    check_not_constant(image, Path(path).name)
    colour = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, 2)
    return torch.from_numpy(np.ascontiguousarray(colour)).permute(2, 0, 1)[None]
