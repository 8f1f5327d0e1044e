"""Tests of synfer.faces.drawn.draw."""

from __future__ import annotations

import time

import numpy as np
import pytest

from synfer.faces.action_units import ACTION_UNITS, REGIONS, action_unit_indices
from synfer.faces.drawn.draw import draw_faces
from synfer.faces.drawn.face import IDENTITY_TRAITS, NUM_IDENTITY_TRAITS, Face
from synfer.foundation.counter_based_random import keyed_uniform

# Sharp and without grain, straight on, no beard and no glasses: what differs between two pictures is the action unit.
_PLAIN = {
    **dict.fromkeys(("blur", "noise"), 0.0),
    **dict.fromkeys(("roll", "yaw", "shift_x", "asymmetry"), 0.5),
    **dict.fromkeys(("beard", "moustache", "glasses", "bald"), 0.9),
}


def identities(n: int, **traits: float) -> np.ndarray:
    identity = keyed_uniform(np.arange(n), NUM_IDENTITY_TRAITS, 11)
    for name, value in traits.items():
        identity[:, IDENTITY_TRAITS.index(name)] = value
    return identity


def acting(n: int, **intensities: float) -> np.ndarray:
    vectors = np.zeros((n, len(ACTION_UNITS)), dtype=np.float32)
    vectors[:, action_unit_indices(list(intensities))] = list(intensities.values())
    return vectors


def change(size: int, n: int = 8, **intensities: float) -> np.ndarray:
    """Mean absolute change of each pixel when action units act, float (size, size)."""
    rest, moved = (draw_faces(au, identities(n, **_PLAIN), size) for au in (acting(n), acting(n, **intensities)))
    return np.abs(moved.astype(int) - rest.astype(int)).mean(axis=(0, 3))


@pytest.mark.parametrize("size", [32, 48, 77, 256])
def test_any_size_gives_colour_bytes(size: int) -> None:
    images = draw_faces(acting(3, AU12=0.8), identities(3), size)
    assert images.shape == (3, size, size, 3)
    assert images.dtype == np.uint8
    assert (images.astype(int).std(axis=(1, 2, 3)) > 10).all()
    assert np.abs(images[..., 0].astype(int) - images[..., 2]).mean() > 3, "not grey"


def test_no_rows_give_no_images() -> None:
    assert draw_faces(acting(0), identities(0), 32).shape == (0, 32, 32, 3)


def test_a_face_does_not_depend_on_its_batch() -> None:
    action_units = keyed_uniform(np.arange(90), len(ACTION_UNITS), 3).astype(np.float32)
    identity = identities(90)
    together = draw_faces(action_units, identity, 48)
    np.testing.assert_array_equal(together, draw_faces(action_units, identity, 48))
    backwards = draw_faces(action_units[::-1], identity[::-1], 48)[::-1]
    np.testing.assert_array_equal(together, backwards)
    for row in (0, 17, 89):
        np.testing.assert_array_equal(together[row], draw_faces(action_units[[row]], identity[[row]], 48)[0])


@pytest.mark.parametrize("name", ACTION_UNITS)
def test_every_action_unit_shows(name: str) -> None:
    assert change(64, n=4, **{name: 1.0}).max() > 4


@pytest.mark.parametrize("region", REGIONS)
def test_an_action_unit_moves_its_part_of_the_face(region: str) -> None:
    # The jaw stretches the whole face, and the nose wrinkler lowers the brows: neither says anything about a region.
    names = [name for name in REGIONS[region] if name not in ("AU9", "AU26", "AU27")]
    rows = np.concatenate([change(64, n=4, **{name: 1.0}).sum(axis=1)[None] for name in names]).sum(axis=0)
    centre = (rows * np.arange(64)).sum() / rows.sum() / 64
    low, high = {"brows": (0.2, 0.42), "eyes": (0.4, 0.6), "nose": (0.45, 0.75), "mouth": (0.62, 0.85)}[region]
    assert low < centre < high


@pytest.mark.parametrize(("name", "left"), [("AUR12", True), ("AUL12", False), ("AUR14", True), ("AUL2", False)])
def test_one_sided_units_act_on_one_side(name: str, left: bool) -> None:
    moved = change(64, **{name: 1.0})
    shares = moved[:, :32].sum() / moved.sum()
    assert (shares > 0.65) if left else (shares < 0.35)


def test_intensity_grows_the_change() -> None:
    changes = [change(64, AU12=intensity).sum() for intensity in (0.25, 0.5, 1.0)]
    assert changes[0] > 0
    assert changes == sorted(changes)


def test_people_differ() -> None:
    images = draw_faces(acting(16), identities(16), 32).reshape(16, -1).astype(int)
    distance = np.abs(images[:, None] - images[None]).mean(axis=2)
    assert distance[~np.eye(16, dtype=bool)].min() > 5


@pytest.mark.parametrize("name", IDENTITY_TRAITS)
def test_every_trait_of_identity_shows(name: str) -> None:
    everyone = {"beard": 0.05, "moustache": 0.05, "glasses": 0.05, "bald": 0.9, "blur": 0.9, "noise": 0.9}
    low, high = (
        draw_faces(acting(4, AU25=0.5, AU12=0.3), identities(4, **{**everyone, name: value}), 64)
        for value in (0.05, 0.95)
    )
    assert (low != high).any()


def test_no_part_is_cut_off_by_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    # Corners of the ranges as well as their middle: there the shapes reach farthest.
    action_units = np.concatenate([keyed_uniform(np.arange(60), len(ACTION_UNITS), 3)] * 2).astype(np.float32)
    identity = np.concatenate([identities(60)] * 2)
    action_units[60:], identity[60:] = action_units[60:].round(), identity[60:].round()
    windowed = np.concatenate([draw_faces(action_units[[i]], identity[[i]], 32) for i in range(120)])
    monkeypatch.setattr(Face, "window", lambda face, *box: face.everything())
    np.testing.assert_array_equal(windowed, draw_faces(action_units, identity, 32))


def test_windows_halve_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    # Beside drawing without them on the same machine: images a second are 850 on one processor and 390 on another.
    action_units, identity = acting(128, AU6=0.7, AU12=0.9), identities(128)

    def seconds() -> float:
        start = time.process_time()  # other processes must not fail the test
        draw_faces(action_units, identity, 64)
        return time.process_time() - start

    ratios = []
    for _ in range(7):
        windowed = seconds()
        with monkeypatch.context() as patched:
            patched.setattr(Face, "window", lambda face, *box: face.everything())
            ratios.append(seconds() / windowed)
    assert np.median(ratios) > 1.6  # 2.1 to 2.5 measured


@pytest.mark.parametrize(
    ("action_units", "identity", "size", "message"),
    [
        (np.zeros((2, 40)), np.zeros((2, NUM_IDENTITY_TRAITS)), 48, r"action_units has shape \(2, 40\)"),
        (np.zeros((2, 41)), np.zeros((3, NUM_IDENTITY_TRAITS)), 48, "identity has shape"),
        (np.full((2, 41), 1.5), np.zeros((2, NUM_IDENTITY_TRAITS)), 48, r"action_units of row 0 .* \(and of 1 more\)"),
        (np.full((1, 41), np.nan), np.zeros((1, NUM_IDENTITY_TRAITS)), 48, "action_units of row 0"),
        (np.zeros((2, 41)), np.zeros((2, NUM_IDENTITY_TRAITS)), 16, "size is 16, expected 32…256"),
    ],
)
def test_bad_input_is_named(action_units: np.ndarray, identity: np.ndarray, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_faces(action_units, identity, size)


def test_a_closer_crop_shows_more_of_what_action_units_move() -> None:
    identity = np.random.default_rng(0).random((20, NUM_IDENTITY_TRAITS))
    still, smiling = np.zeros((20, len(ACTION_UNITS))), np.zeros((20, len(ACTION_UNITS)))
    smiling[:, action_unit_indices(["AU12", "AU6"])] = 1

    def changed(zoom: float) -> float:
        pictures = [draw_faces(units, identity, 48, zoom).astype(float) for units in (still, smiling)]
        return float((np.abs(pictures[0] - pictures[1]).max(-1) > 16).mean())

    assert changed(1.5) > 1.6 * changed(1.0)
    with pytest.raises(ValueError, match=r"zoom is 2.5, expected 1…2"):
        draw_faces(still, identity, 48, 2.5)
