"""Faces that are turned, scaled and shifted come back to one template."""

from __future__ import annotations

import numpy as np
import pytest

from synfer.faces.face_alignment import (
    POINTS_IN_BOX,
    TEMPLATES,
    aligned,
    five_of_68,
    points_of_box,
    similarity,
    template_points,
)
from tests.fixtures.placed_faces import PlacedFace, drawn_face, placed_face

TEMPLATE = template_points("arcface", 0.2)


def brought(face: PlacedFace, side: int) -> np.ndarray:
    matrix = similarity(face.points + 0.5, TEMPLATE)
    assert matrix is not None
    return aligned(face.picture, matrix, side)


@pytest.mark.parametrize("degrees", [-75.0, -20.0, 0.0, 35.0])
@pytest.mark.parametrize(("side", "centre"), [(100.0, (160.0, 120.0)), (180.0, (130.5, 119.0)), (60.0, (270.0, 70.0))])
def test_points_come_to_the_template(degrees: float, side: float, centre: tuple[float, float]) -> None:
    """A bright spot is painted on each point; it is found where the template has it, within a pixel or so."""
    face = placed_face(3, degrees, side, centre)
    matrix = similarity(face.points + 0.5, TEMPLATE)
    assert matrix is not None
    # Where a fit of five points by four numbers puts each of them: a face is no exact copy of the template.
    turn = np.array([[matrix[0, 0], matrix[0, 1]], [matrix[1, 0], matrix[1, 1]]])
    expected = (face.points + 0.5 - matrix[:, 2]) @ np.linalg.inv(turn).T * 96 - 0.5
    assert np.abs(expected - (TEMPLATE * 96 - 0.5)).max() < 9
    for point, place in zip(face.points, expected, strict=True):
        dark = np.zeros(face.picture.shape[:2], dtype=np.float32)
        y, x = np.indices(dark.shape)
        dark[:] = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (side / 60) ** 2))
        found = aligned(dark.astype(np.uint8), matrix, 96).astype(np.float64)
        rows, columns = np.indices(found.shape)
        middle = np.array([(columns * found).sum(), (rows * found).sum()]) / found.sum()
        assert np.abs(middle - place).max() < 1.0


@pytest.mark.parametrize(("degrees", "side", "centre"), [(40.0, 110.0, (120.0, 130.0)), (-60.0, 200.0, (150.0, 110.0))])
def test_one_face_looks_the_same_wherever_it_lay(degrees: float, side: float, centre: tuple[float, float]) -> None:
    still = brought(placed_face(7, 0.0, 128.0, (160.0, 120.0)), 64).astype(np.float64)
    moved = brought(placed_face(7, degrees, side, centre), 64).astype(np.float64)
    other = brought(placed_face(8, 0.0, 128.0, (160.0, 120.0)), 64).astype(np.float64)
    middle = (slice(12, 52), slice(12, 52))  # what lies outside of the photograph differs
    same, different = np.abs(still - moved)[middle].mean(), np.abs(still - other)[middle].mean()
    assert same < 6 and same < different / 3


def test_a_large_face_is_not_sampled_with_holes() -> None:
    """Stripes of one pixel become grey, where a sample for each output pixel would show them as a pattern."""
    stripes = np.zeros((640, 640), dtype=np.uint8)
    stripes[:, ::2] = 255
    matrix = similarity(points_of_box((40, 40, 600, 600)), TEMPLATE)
    assert matrix is not None
    face = aligned(stripes, matrix, 32)
    assert face.shape == (32, 32) and np.ptp(face[6:26, 6:26].astype(int)) < 40


def test_a_box_stands_for_points_at_their_usual_places() -> None:
    matrix = similarity(points_of_box((100, 50, 200, 150)), np.array(POINTS_IN_BOX))
    assert matrix is not None
    np.testing.assert_allclose(matrix, [[100, 0, 100], [0, 100, 50]], atol=1e-9)


def test_what_lies_outside_is_black_and_colour_stays() -> None:
    matrix = similarity(points_of_box((-50, -50, 50, 50)), np.array(POINTS_IN_BOX))
    assert matrix is not None
    face = aligned(np.full((100, 100, 3), (10, 200, 30), dtype=np.uint8), matrix, 20)
    assert face.shape == (20, 20, 3) and face[:9].max() == 0 and (face[15, 15] == (10, 200, 30)).all()


def test_points_that_are_no_face() -> None:
    _, points = drawn_face(0)
    face = points * 100
    assert similarity(face, TEMPLATE) is not None
    assert similarity(np.full((5, 2), 3.0), TEMPLATE) is None  # all in one place
    assert similarity(np.where(np.eye(5, 2) > 0, np.nan, face), TEMPLATE) is None
    assert similarity(100 - face, TEMPLATE) is None  # upside down
    assert similarity(face[[1, 0, 2, 4, 3]], TEMPLATE) is None  # left and right confused
    assert similarity(np.random.default_rng(0).random((5, 2)) * 100, TEMPLATE) is None


def test_five_of_68() -> None:
    points = np.arange(136, dtype=np.float64).reshape(68, 2)
    np.testing.assert_allclose(five_of_68(points)[:, 0], [77, 89, 60, 96, 108])


def test_templates_and_margins() -> None:
    for name, expected in TEMPLATES.items():
        np.testing.assert_allclose(template_points(name, 0), expected)
    np.testing.assert_allclose(template_points([0.5, 0, 1, 0, 0, 0, 0, 1, 1, 1], 0.5)[:2], [[0.5, 0.25], [0.75, 0.25]])
    for template, margin, said in (
        ("dlib", 0.0, "found the template 'dlib', expected arcface"),
        ([0.5] * 9, 0.0, "found 9 numbers"),
        ([0.5] * 10, 0.0, "no five points that differ"),
        ("arcface", -0.5, "found the margin -0.5"),
        ("arcface", float("nan"), "found the margin nan"),
    ):
        with pytest.raises(ValueError, match=said):
            template_points(template, margin)
