from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from synfer.representation.views import VIEW_COLUMNS, ViewSettings, make_view, view_numbers

STILL = {"crop": [1.0, 1.0], "aspect": [1.0, 1.0], "flip": 0.0, "jitter": 0.0, "grey": 0.0, "blur": [0.0, 0.0]}


def faces(count: int = 4, side: int = 12) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def numbers(count: int = 4, **columns: float) -> torch.Tensor:
    found = view_numbers([f"face {row}" for row in range(count)], 0, seed=1, epoch=0, step=0)
    for column, value in columns.items():
        found[:, int(column.removeprefix("c"))] = value
    return found


def test_nothing_asked_for_changes_nothing() -> None:
    seen = make_view(faces(), ViewSettings(**STILL), numbers(), 0, 12)
    assert torch.allclose(seen, faces(), atol=1e-6)


def test_mirror() -> None:
    seen = make_view(faces(), ViewSettings(**{**STILL, "flip": 1.0}), numbers(), 0, 12)
    assert torch.allclose(seen, faces().flip(-1), atol=1e-6)


def test_a_crop_of_whole_pixels_is_resized_as_torch_does() -> None:
    # A quarter of the area, from pixel 3 on both ways: u · (12 − 6) = 3.
    settings = ViewSettings(**{**STILL, "crop": [0.25, 0.25]})
    seen = make_view(faces(), settings, numbers(c2=0.5, c3=0.5), 0, 6)
    assert torch.allclose(seen, faces()[..., 3:9, 3:9], atol=1e-6)


@pytest.mark.parametrize("size", [6, 4])
def test_smaller_views_are_antialiased(size: int) -> None:
    seen = make_view(faces(), ViewSettings(**STILL), numbers(), 0, size)
    wanted = F.interpolate(faces(), (size, size), mode="bilinear", antialias=True)
    assert torch.allclose(seen, wanted, atol=1e-5)


def test_blur_is_gaussian() -> None:
    settings = ViewSettings(**{**STILL, "blur": [1.0, 0.0], "blur_sigma": [4.0, 4.0]})  # 1 pixel of a side of 12
    point = torch.zeros(1, 3, 12, 12)
    point[:, :, 6, 6] = 1
    seen = make_view(point, settings, numbers(1), 0, 12)[0, 0]
    assert seen[6, 7] / seen[6, 6] == pytest.approx(np.exp(-0.5), rel=1e-3)
    assert seen.sum() == pytest.approx(1, abs=1e-2)
    assert torch.allclose(make_view(point, settings, numbers(1), 1, 12), point)  # the second view has none


def test_colours_one_by_one() -> None:
    image, grey = faces() * 0.4 + 0.2, torch.tensor([0.299, 0.587, 0.114])
    luminance = (image * grey[:, None, None]).sum(1, keepdim=True)
    still = {**STILL, "jitter": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}

    def seen(**changes: float) -> torch.Tensor:
        return make_view(image, ViewSettings(**{**still, **changes}), numbers(c8=0.75, c9=0.75, c10=0.75), 0, 12)

    assert torch.allclose(seen(), image, atol=1e-6)
    assert torch.allclose(seen(brightness=0.2), image * 1.1, atol=1e-5)
    mean = luminance.mean((2, 3), keepdim=True)
    assert torch.allclose(seen(contrast=0.2), mean + 1.1 * (image - mean), atol=1e-5)
    assert torch.allclose(seen(saturation=0.2), luminance + 1.1 * (image - luminance), atol=1e-5)
    assert torch.allclose(seen(grey=1.0), luminance.expand_as(image), atol=1e-5)


def test_hue_keeps_luminance_and_grey_pictures() -> None:
    image, weights = faces() * 0.4 + 0.3, torch.tensor([0.299, 0.587, 0.114])
    settings = ViewSettings(**{**STILL, "jitter": 1.0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.1})
    seen = make_view(image, settings, numbers(), 0, 12)
    assert (seen - image).abs().max() > 0.02
    before, after = ((x * weights[:, None, None]).sum(1) for x in (image, seen))
    assert torch.allclose(before, after, atol=2e-3)
    grey = image[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(make_view(grey, settings, numbers(), 0, 12), grey, atol=2e-3)


def test_solarise() -> None:
    settings = ViewSettings(**{**STILL, "solarise": [0.0, 1.0]})
    seen = make_view(faces(), settings, numbers(), 1, 12)
    assert torch.allclose(seen, torch.where(faces() >= 0.5, 1 - faces(), faces()), atol=1e-5)


def test_a_view_does_not_depend_on_its_batch() -> None:
    names = [f"face {row}" for row in range(4)]
    whole = make_view(faces(), ViewSettings(), view_numbers(names, 1, 3, 2, 7), 1, 10)
    assert whole.min() >= 0 and whole.max() <= 1 and whole.shape == (4, 3, 10, 10)
    for row, name in enumerate(names):
        alone = make_view(faces()[row : row + 1], ViewSettings(), view_numbers([name], 1, 3, 2, 7), 1, 10)
        assert torch.allclose(alone[0], whole[row], atol=1e-6)


def test_numbers_differ_by_view_step_and_occurrence() -> None:
    found = [view_numbers(["a", "a"], view, 1, 0, step) for view in (0, 1) for step in (0, 1)]
    rows = torch.cat(found)
    assert rows.shape == (8, VIEW_COLUMNS) and len(rows.unique(dim=0)) == 8


def test_pictures_that_are_no_squares() -> None:
    seen = make_view(faces()[..., :8], ViewSettings(**STILL), numbers(), 0, 8)
    assert seen.shape == (4, 3, 8, 8) and seen.isfinite().all()


@pytest.mark.parametrize(
    ("name", "value"), [("crop", [0.0, 1.0]), ("flip", 2.0), ("blur", [0.5]), ("hue", 0.7), ("aspect", [2.0, 1.0])]
)
def test_range(name: str, value: object) -> None:
    assert name in {entry.name for entry in fields(ViewSettings)}
    with pytest.raises(ValueError, match=rf"^model.views.{name}="):
        ViewSettings(**{name: value})  # type: ignore[arg-type]


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="expected"):
        make_view(faces(), ViewSettings(), numbers(3), 0, 12)
