"""Labels one picture after the other: read and prepared in threads ahead of the network, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from datamodules.rows.images import BadImageError
from datamodules.rows.read_ahead import read_ahead
from experiments.label.progress import Progress
from experiments.label.sources import Picture
from lightning_modules.labeller import Labeller
from synfer.faces.face_detector import FaceBox, FaceDetector
from synfer.labels.labelled_faces import LabelledFaces

_BATCHES_AHEAD = 2


@dataclass
class Labelling:
    """One labelling of many pictures.

    Attributes:
        labeller: the classifier, with what evaluation did before it.
        detector: finds the faces; None = each picture is the crop of a face.
        margin: how far beyond a found box a face is cut out, as a share of the box; a classifier that was trained on
            aligned faces gets them by its own template in place of it.
        threads: that read, search and resize ahead.
        names_bad: whether each picture that cannot be used is named on the way.
        faces: what has come out.
        bad: a line for each picture that cannot be used.
        without_face: number of pictures in which no face was found.
        interrupted: whether Ctrl-C has ended it.
    """

    labeller: Labeller
    detector: FaceDetector | None = None
    margin: float = 0.0
    threads: int = 2
    names_bad: bool = True
    faces: LabelledFaces = field(init=False)
    bad: list[str] = field(default_factory=list)
    without_face: int = 0
    interrupted: bool = False

    def __post_init__(self) -> None:
        self.faces = LabelledFaces(self.labeller.named_expressions, self.labeller.rates_affect)

    def run(self, pictures: Iterable[Picture], progress: Progress) -> None:
        """Labels pictures, and ends in good order where Ctrl-C breaks in."""
        try:
            self._run(pictures, progress)
        except KeyboardInterrupt:
            self.interrupted = True
            self.faces.keep_whole_rows()
        finally:
            progress.end()

    def _run(self, pictures: Iterable[Picture], progress: Progress) -> None:
        waiting: list[Tensor] = []
        ahead = _BATCHES_AHEAD * self.labeller.batch_size
        for picture, found in read_ahead(self._look, pictures, self.threads, ahead):
            if isinstance(found, BadImageError):
                self.bad.append(str(found))
                if self.names_bad:
                    progress.interrupt(f"cannot be used: {found}")
            elif not found:
                self.without_face += 1
                self.faces.add_without_face(picture.path, picture.frame)
            else:
                for number, (box, face) in enumerate(found):
                    self.faces.add_face(picture.path, picture.frame, number, box)
                    waiting.append(face)
            if len(waiting) >= self.labeller.batch_size:
                self._flush(waiting)
            progress.add(1)
        self._flush(waiting)

    def _flush(self, waiting: list[Tensor]) -> None:
        if waiting:
            probabilities, affect = self.labeller.look_at(waiting)
            columns = probabilities[:, : len(self.faces.label_space)]
            self.faces.add_probabilities(columns.numpy(), None if affect is None else affect.numpy())
            waiting.clear()

    def _look(self, picture: Picture) -> list[tuple[FaceBox | None, Tensor]] | BadImageError:
        """Returns the faces of a picture as the classifier takes them, or why there are none to be had."""
        try:
            pixels = picture.read()
        except BadImageError as error:
            return error
        if self.detector is None:
            return [(None, self.labeller.prepare(pixels))]
        boxes = self.detector(pixels)
        if self.labeller.prepare.alignment is None:
            return [(box, self.labeller.prepare(box.cut_from(pixels, self.margin))) for box in boxes]
        faces = [(box, self.labeller.prepare.face_in(pixels, (box.x0, box.y0, box.x1, box.y1))) for box in boxes]
        return [(box, face) for box, face in faces if face is not None]
