"""The table of labelled faces, a row per face: where it lies, its probabilities by name, its label."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from synfer.faces.affect import AFFECT
from synfer.faces.face_detector import FaceBox
from synfer.foundation.atomic_file import atomic_write

SUFFIXES = (".csv", ".parquet")


class LabelledFaces:
    """Collects faces and writes them as CSV or Parquet.

    Columns: ``path``, ``frame`` (of a video, from 0), ``face`` (number in its picture, from 0), ``x0``, ``y0``, ``x1``,
    ``y1`` (the box in pixels; empty where the picture is the face), one per expression, ``label``, ``confidence``;
    ``valence`` and ``arousal`` where they are rated. A picture in which no face was found has a row with path and frame
    alone, so that each picture has one.

    Args:
        label_space: names of the K expressions; of none there are no columns for them, and no label.
        rates_affect: whether valence and arousal of the faces are given as well.
    """

    def __init__(self, label_space: tuple[str, ...], rates_affect: bool = False) -> None:
        self.label_space, self.rates_affect = label_space, rates_affect
        self._affect: list[np.ndarray] = []
        self._places: list[tuple[str, int | None, int | None, FaceBox | None]] = []
        self._probabilities: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._places)

    def add_face(self, path: str, frame: int | None, face: int, box: FaceBox | None) -> None:
        """Adds a face; its probabilities follow in the order of the faces (:meth:`add_probabilities`)."""
        self._places.append((path, frame, face, box))

    def add_without_face(self, path: str, frame: int | None) -> None:
        """Adds a picture in which there is no face."""
        self._places.append((path, frame, None, None))

    def add_probabilities(self, rows: np.ndarray, affect: np.ndarray | None = None) -> None:
        """Adds the probabilities, float32 (n, K), and where they are rated valence and arousal, of the next n faces.

        Raises:
            ValueError: ratings of another shape than (n, 2), or none where there are to be some.
        """
        if self.rates_affect and (affect is None or affect.shape != (len(rows), len(AFFECT))):
            found = "none" if affect is None else affect.shape
            raise ValueError(f"labelled faces: found ratings {found}, expected ({len(rows)}, {len(AFFECT)})")
        self._probabilities.extend(rows)
        if affect is not None:
            self._affect.extend(affect)

    def keep_whole_rows(self) -> None:
        """Drops the first face without probabilities, as after an interruption, and all that follows it."""
        missing = len(self._probabilities)
        for place, (_, _, face, _) in enumerate(self._places):
            if face is not None:
                if not missing:
                    del self._places[place:]
                    return
                missing -= 1

    def counts(self) -> dict[str, int]:
        """Returns expression → number of faces with this label, the most frequent first."""
        if not self.label_space:
            return {}
        labels = [self.label_space[int(row.argmax())] for row in self._probabilities]
        return dict(Counter(labels).most_common())

    @property
    def faces(self) -> int:
        """Number of faces with probabilities."""
        return len(self._probabilities)

    def table(self) -> pa.Table:
        """Returns the columns.

        Raises:
            ValueError: a face lacks its probabilities.
        """
        faces = [place for place, (_, _, face, _) in enumerate(self._places) if face is not None]
        if len(faces) != len(self._probabilities):
            raise ValueError(f"labelled faces: found {len(self._probabilities)} probabilities of {len(faces)} faces")
        values = np.full((len(self._places), len(self.label_space)), np.nan, dtype=np.float32)
        if faces:
            values[faces] = np.stack(self._probabilities)
        found = np.array([face is not None for _, _, face, _ in self._places], dtype=bool)
        boxes = [box for _, _, _, box in self._places]
        columns = {
            "path": pa.array([path for path, _, _, _ in self._places], pa.string()),
            "frame": pa.array([frame for _, frame, _, _ in self._places], pa.int64()),
            "face": pa.array([face for _, _, face, _ in self._places], pa.int64()),
            **{
                side: pa.array([None if box is None else getattr(box, side) for box in boxes], pa.int64())
                for side in ("x0", "y0", "x1", "y1")
            },
            **{name: pa.array(values[:, k], mask=~found) for k, name in enumerate(self.label_space)},
        }
        if self.label_space:
            best = np.where(np.isnan(values), -1, values).argmax(1)
            labels = [self.label_space[k] if here else None for k, here in zip(best, found, strict=True)]
            columns["label"] = pa.array(labels, pa.string())
            columns["confidence"] = pa.array(values.max(1) if len(values) else values[:, 0], mask=~found)
        if self.rates_affect:
            rated = np.full((len(self._places), len(AFFECT)), np.nan, dtype=np.float32)
            if faces:
                rated[faces] = np.stack(self._affect)
            columns |= {name: pa.array(rated[:, k], mask=~found) for k, name in enumerate(AFFECT)}
        return pa.table(columns)

    def write(self, path: Path, source: str) -> None:
        """Writes the table, whole or not at all, as its suffix says.

        Args:
            path: a .csv or .parquet file.
            source: what labelled them, kept in the metadata of a Parquet file.
        """
        table = self.table()
        with atomic_write(path) as partial:
            if path.suffix.lower() == ".csv":
                pa.csv.write_csv(table, partial)
            else:
                labels = json.dumps(list(self.label_space))
                kept = table.replace_schema_metadata({"label_space": labels, "classifier": source})
                pq.write_table(kept, partial, write_page_checksum=True)


def check_out(path: Path, overwrite: bool) -> None:
    """Checks, before any face is labelled, that a table can be written there.

    Raises:
        ValueError: another suffix, a folder, a file that is there already, or a folder that cannot be written to.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out '{path}': found the suffix '{path.suffix}', expected {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise ValueError(f"--out '{path}': found a folder, expected the name of a file")
    if path.exists() and not overwrite:
        raise ValueError(f"--out '{path}': found a file there already, expected a new name (or --overwrite)")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    reason = None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".synfer-"):
            pass
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
    if reason is not None:  # outside of the clause, so that the error is about --out and not about the trial file
        raise ValueError(f"--out '{path}': cannot be written ({reason}), expected a folder that can")
