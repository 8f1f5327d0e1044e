"""The embedded data set: faces drawn on the spot, of any number and size, with exact labels and action units."""

from __future__ import annotations

import numpy as np

from datamodules.readers.reader import Reader, Split
from datamodules.rows.provenance import content_hash
from datamodules.rows.sample_table import ArrayImages, ReadReport, SampleTable, one_hot
from synfer.faces.action_units import ACTION_UNITS, action_unit_indices, mirrored_order, sample_action_units
from synfer.faces.affect import positions_of
from synfer.faces.drawn.draw import draw_faces
from synfer.faces.drawn.face import LARGEST_SIZE, LARGEST_ZOOM, NUM_IDENTITY_TRAITS, SMALLEST_SIZE
from synfer.faces.expressions import resolve_label_space
from synfer.foundation.counter_based_random import keyed_uniform
from synfer.foundation.random_streams import DrawnFace

DEFAULT_COUNT = {"train": 4000, "val": 800, "test": 800}
"""Number of faces per split unless the config says otherwise."""

_SPLITS = ("train", "val", "test")
_KEY = "data.reader.init_args"
# Streams of random numbers: one per use, so that one setting never changes what another one draws.
_CHUNK = 512  # rows at a time; bounds memory, changes nothing in the result

HABITS: tuple[dict[str, float], ...] = (
    {"AU25": 0.6, "AU26": 0.4},  # speaks
    {"AU1": 0.35, "AU2": 0.4},  # raises the brows
    {"AU4": 0.35, "AU7": 0.4},  # squints at the sun
    {"AU12": 0.3},  # smiles politely
    {"AUL12": 0.3},  # smiles on one side
    {"AU24": 0.5, "AU17": 0.35},  # presses the lips together
    {"AU18": 0.4},  # purses the lips
    {"AU15": 0.3},  # lets the corners of the mouth hang
    {"AU5": 0.4},  # opens the eyes
)
"""What faces do besides showing an expression: action units and their highest intensities."""


MOST_FREE_UNITS = 3
"""How many action units of no expression a face shows at most."""


class DrawnReader(Reader):
    """Faces of :func:`synfer.faces.drawn.draw.draw_faces`, labelled by the prototype that they were drawn from.

    A face is drawn from the FACS prototype of its class, at an overall intensity of 0.55 to 1, and one face in five
    shows a habit of the person on top. ``au`` holds exactly what was drawn. The face of row i of a split is a function
    of (seed, split, i) and of its class; the class of row i depends on i, the label space and ``imbalance`` alone. More
    rows therefore never change earlier ones, and the splits share no face. Nothing here can be a bad sample.

    Args:
        count: number of faces per split, keys "train", "val", "test"; a split left out keeps its default (4000, 800,
            800).
        image_size: edge length in pixels, 32…256.
        seed: tells one drawn data set from another.
        label_space: "basic7", "ferplus8" or a list of expressions.
        label_noise: probability, in [0, 1], that a training label is replaced by another class, each alike. Images and
            action units stay what they were; ``clean_labels`` gives the labels before.
        imbalance: largest ÷ smallest class in training, ≥ 1; geometric in between, in the order of the label space.
        grey: grey pictures instead of colour.
        zoom: how close the pictures are cropped, 1…2: 1 = head and shoulders, 1.5 = brows to chin.
        free_units: share of the faces, in [0, 1], that show one to three action units on top which belong to no
            expression, each any of the 41 at any intensity: action units that the class does not give away.
        variety: how much persons and pictures differ, in (0, 1]: near 0 = always the same average person in the same
            light. What is left of the variance is the expression's, which small networks then find sooner.
        affect: whether rows carry valence and arousal: by a rule and not by raters, the published position of the word
            for the expression (:data:`synfer.faces.affect.PUBLISHED_POSITIONS`) times the overall intensity with which
            the face shows it; habits and free units do not count, and contempt has none.

    Raises:
        ValueError: a value out of its range, an unknown split or label space; the line names the config key.
    """

    def __init__(
        self,
        count: dict[str, int] | None = None,
        image_size: int = 48,
        seed: int = 1,
        label_space: str | list[str] = "ferplus8",
        label_noise: float = 0.0,
        imbalance: float = 1.0,
        grey: bool = False,
        zoom: float = 1.0,
        variety: float = 1.0,
        free_units: float = 0.0,
        affect: bool = False,
    ) -> None:
        count = {} if count is None else dict(count)
        for split, number in count.items():
            if split not in _SPLITS:
                raise ValueError(f"{_KEY}.count: found split '{split}', expected {', '.join(_SPLITS)}")
            if number < 1:
                raise ValueError(f"{_KEY}.count.{split}: found {number}, expected at least 1")
        if not SMALLEST_SIZE <= image_size <= LARGEST_SIZE:
            raise ValueError(f"{_KEY}.image_size: found {image_size}, expected {SMALLEST_SIZE}…{LARGEST_SIZE} pixels")
        if not 0 <= label_noise <= 1:
            raise ValueError(f"{_KEY}.label_noise: found {label_noise}, expected a share in [0, 1]")
        if not 1 <= imbalance < float("inf"):
            raise ValueError(f"{_KEY}.imbalance: found {imbalance}, expected a finite ratio of at least 1")
        if not 1 <= zoom <= LARGEST_ZOOM:
            raise ValueError(f"{_KEY}.zoom: found {zoom}, expected 1…{LARGEST_ZOOM}")
        if not 0 < variety <= 1:  # at 0 neutral faces of all splits would be one picture
            raise ValueError(f"{_KEY}.variety: found {variety}, expected a number in (0, 1]")
        if not 0 <= free_units <= 1:
            raise ValueError(f"{_KEY}.free_units: found {free_units}, expected a share in [0, 1]")
        try:
            self.label_space = resolve_label_space(label_space)
        except ValueError as error:
            raise ValueError(f"{_KEY}.label_space: {error}") from None
        self.count = DEFAULT_COUNT | count
        self.image_size = image_size
        self.seed = seed
        self.label_noise = label_noise
        self.imbalance = imbalance
        self.grey = grey
        self.zoom = zoom
        self.variety = variety
        self.free_units = free_units
        self.affect = affect

    def read(self, split: Split) -> SampleTable:
        """Draws all rows of one split.

        Raises:
            ValueError: no such split.
        """
        clean = self.clean_labels(split)
        label = self._noisy(clean) if split == "train" else clean
        rows = np.arange(len(clean))
        action_units = self._action_units(split, clean)
        channels = () if self.grey else (3,)
        pixels = np.empty((len(rows), self.image_size, self.image_size, *channels), dtype=np.uint8)
        for start in range(0, len(rows), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            identity = keyed_uniform(rows[chunk], NUM_IDENTITY_TRAITS, *self._stream(split, DrawnFace.IDENTITY))
            if self.variety < 1:
                identity = 0.5 + self.variety * (identity - 0.5)
            faces = draw_faces(action_units[chunk], identity, self.image_size, self.zoom)
            pixels[chunk] = _luminance(faces) if self.grey else faces
        return SampleTable(
            images=ArrayImages(pixels),
            label=label,
            soft_label=one_hot(label, len(self.label_space)),
            sample_id=np.array([f"drawn-{self.seed}-{split}-{row:06d}" for row in rows]),
            content_hash=np.array([content_hash(image) for image in pixels]),
            label_space=self.label_space,
            split=split,
            au=action_units,
            affect=self._affect(split, clean) if self.affect else None,
            report=ReadReport(read=len(rows)),
        )

    def clean_labels(self, split: Split) -> np.ndarray:
        """Returns what the faces of a split really show, whatever ``label_noise`` is: int64 (N,).

        Raises:
            ValueError: no such split.
        """
        if split not in _SPLITS:
            raise ValueError(f"drawn faces: found split '{split}', expected {', '.join(_SPLITS)}")
        k = len(self.label_space)
        weights = (self.imbalance if split == "train" else 1.0) ** (-np.arange(k) / (k - 1))
        return _apportion(weights / weights.sum(), self.count[split])

    def _stream(self, split: str, use: int) -> tuple[int, int, int]:
        return self.seed, _SPLITS.index(split), use

    def _noisy(self, clean: np.ndarray) -> np.ndarray:
        """Replaces labels by another class, int64 (N,)."""
        uniform = keyed_uniform(np.arange(len(clean)), 2, *self._stream("train", DrawnFace.LABEL_NOISE))
        k = len(self.label_space)
        other = (clean + 1 + (uniform[:, 1] * (k - 1)).astype(np.int64)) % k
        return np.where(uniform[:, 0] < self.label_noise, other, clean)

    def _action_units(self, split: str, label: np.ndarray) -> np.ndarray:
        """Draws the action units of every row, float32 (N, A)."""
        rows, a = np.arange(len(label)), len(ACTION_UNITS)
        uniform = keyed_uniform(rows, 2 * a, *self._stream(split, DrawnFace.ACTION_UNITS)).reshape(len(rows), 2, a)
        vectors = sample_action_units([self.label_space[index] for index in label], uniform)
        vectors *= self._intensity(split, len(rows))
        mirrored = keyed_uniform(rows, 1, *self._stream(split, DrawnFace.MIRROR))[:, 0] < 0.5
        vectors[mirrored] = vectors[mirrored][:, mirrored_order(ACTION_UNITS)]
        habit = keyed_uniform(rows, 3, *self._stream(split, DrawnFace.HABIT))
        shown = habit[:, 0] < 0.2
        which = (habit[:, 1] * len(HABITS)).astype(np.int64)
        for number, units in enumerate(HABITS):
            mine = np.flatnonzero(shown & (which == number))
            for column, highest in zip(action_unit_indices(tuple(units)), units.values(), strict=True):
                vectors[mine, column] = np.maximum(vectors[mine, column], highest * (0.4 + 0.6 * habit[mine, 2]))
        if self.free_units:
            self._add_free_units(vectors, split)
        return vectors

    def _intensity(self, split: str, count: int) -> np.ndarray:
        """Returns how strongly each face shows its expression, float32 (N, 1) in 0.55…1."""
        return 0.55 + 0.45 * keyed_uniform(np.arange(count), 1, *self._stream(split, DrawnFace.INTENSITY)).astype(
            np.float32
        )

    def _affect(self, split: str, label: np.ndarray) -> np.ndarray:
        """Returns valence and arousal of every row by the rule, float32 (N, 2)."""
        names = [self.label_space[index] for index in label]
        return positions_of(names, self._intensity(split, len(label))[:, 0])

    def _add_free_units(self, vectors: np.ndarray, split: str) -> None:
        """Adds action units of no expression, in place, to some of the rows, (N, A)."""
        rows = np.arange(len(vectors))
        uniform = keyed_uniform(rows, 2 + 2 * MOST_FREE_UNITS, *self._stream(split, DrawnFace.FREE_UNITS))
        number = np.where(uniform[:, 0] < self.free_units, 1 + (uniform[:, 1] * MOST_FREE_UNITS).astype(np.int64), 0)
        for place in range(MOST_FREE_UNITS):
            mine = np.flatnonzero(number > place)
            column = (uniform[mine, 2 + 2 * place] * len(ACTION_UNITS)).astype(np.int64)
            vectors[mine, column] = np.maximum(vectors[mine, column], uniform[mine, 3 + 2 * place])


def _apportion(shares: np.ndarray, n: int) -> np.ndarray:
    """Gives each of n rows a class so that every prefix holds the classes in these shares: int64 (n,)."""
    given = np.zeros(len(shares))
    label = np.empty(n, dtype=np.int64)
    for row in range(n):
        # The class whose next row is due first (Webster's method); rounded, so that equal shares tie exactly.
        label[row] = np.argmin(np.round((given + 0.5) / shares, 9))
        given[label[row]] += 1
    return label


def _luminance(images: np.ndarray) -> np.ndarray:
    """RGB uint8 (n, H, W, 3) → grey uint8 (n, H, W), ITU-R BT.601 weights in integers."""
    red, green, blue = (images[..., channel].astype(np.uint32) for channel in range(3))
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)
