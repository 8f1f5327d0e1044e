"""The streams of random numbers: which number tells each use of :mod:`counter_based_random` from the others.

Numbers are never changed and never given twice: each decides what every run with the same seed draws. Two uses are
older than the list and have none, because what they are keyed by stands alone: the starting noise of a face (seed,
sample id), and its caption and action units (the name "syn-<seed>-<id>", seed).
"""

from __future__ import annotations

from enum import IntEnum


class Stream(IntEnum):
    """Uses that are told apart by this number alone."""

    POOL_EXPRESSIONS = 0x0E
    LAYOUT_SOURCE = 0x1A
    KID_SUBSET = 0x1D
    VALIDATION_NOISE = 0x7A
    NEAREST_TRAINING = 0x7E
    TRAINING_ACTION_UNITS = 0xA1
    TRAINING_NOISE = 0xD1
    SHARE_OF_ROWS = 0x5E7
    AUGMENTATION = 0xA06
    EVEN_ORDER_OF_ROWS = 0xE7E
    ANNOTATOR_FLIP = 0xF11
    STEP_SEED = 0x57E9
    CAPTION = 0xCA97
    POSTERIOR_NOISE = 0x905E
    SOURCE_FACE = 0x50FA
    MEAN_CODES = 0x3EA2
    LONG_TAIL_OF_ROWS = 0x107A
    POOL_SHARES = 0x50A2
    AU_SENTENCE = 0xA5E7
    STREAM_ORDER = 0x57E0
    HELD_OUT_ROWS = 0x4E1D
    VALIDATION_ROWS = 0x7A10
    VIEWS = 0x71E3
    HIDDEN_PATCHES = 0x41DE
    SHOTS = 0x5407
    CALIBRATION_NOISE = 0xCA1B


class Mixing(IntEnum):
    """What the mixture sampler draws: (seed, this, epoch or rank, …)."""

    REAL_ROWS = 0
    CLASS_ORDER = 1
    CLASS_ROWS = 2
    SYNTHETIC_SLOTS = 3
    EVEN_CLASS_ORDER = 4


class DrawnFace(IntEnum):
    """What is drawn of each drawn face: (seed, split, this)."""

    IDENTITY = 0
    ACTION_UNITS = 1
    INTENSITY = 2
    HABIT = 3
    MIRROR = 4
    LABEL_NOISE = 5
    FREE_UNITS = 6
