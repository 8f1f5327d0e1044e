"""Images decode exactly, and a bad one is named in one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.images import (
    BadImageError,
    EncodedImages,
    FileImages,
    check_not_constant,
    decode_image,
    read_image,
    resize_square,
)


def encode(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(48, 48), (40, 30, 3)])
def test_lossless_formats_come_back_exactly(shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    for kind in ("PNG", "BMP"):
        np.testing.assert_array_equal(decode_image(encode(image, kind), "x"), image)


def test_other_modes_become_grey_or_rgb() -> None:
    image = noise(8, 8, 3)
    alpha = np.concatenate([image, np.full((8, 8, 1), 255, np.uint8)], axis=-1)
    np.testing.assert_array_equal(decode_image(encode(alpha), "x"), image)
    sixteen = noise(8, 8).astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_image(encode(sixteen), "x"), sixteen >> 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_file_is_named(kind: str) -> None:
    whole = encode(noise(48, 48), kind)
    with pytest.raises(BadImageError, match=r"^row 7: found \d+ bytes that cannot be decoded .*, expected a whole"):
        decode_image(whole[: len(whole) // 2], "row 7")


@pytest.mark.parametrize(
    ("data", "found"), [(b"", "no image data"), (None, "no image data"), (b"text", "no known image")]
)
def test_not_an_image(data: bytes | None, found: str) -> None:
    with pytest.raises(BadImageError, match=found) as caught:
        decode_image(data, "row 7")
    assert "\n" not in str(caught.value)


def test_wrong_size_is_named() -> None:
    with pytest.raises(BadImageError, match="row 7: found 20x10 pixels, expected 48x48"):
        decode_image(encode(noise(20, 10)), "row 7", 48)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"gone\.png: cannot be read"):
        read_image(tmp_path / "gone.png")


def test_constant_images_are_bad() -> None:
    check_not_constant(noise(8, 8), "x")
    almost = np.zeros((8, 8), np.uint8)
    almost[7, 7] = 1
    check_not_constant(almost, "x")
    with pytest.raises(BadImageError, match="row 7: found a black image, expected a face"):
        check_not_constant(np.zeros((8, 8, 3), np.uint8), "row 7")
    with pytest.raises(BadImageError, match="one colour only"):
        check_not_constant(np.broadcast_to(np.array([1, 2, 3], np.uint8), (8, 8, 3)), "row 7")


def test_resize_cuts_the_central_square() -> None:
    image = np.zeros((10, 30), np.uint8)
    image[:, 10:20] = 200
    assert resize_square(image, 5).min() == 200
    assert resize_square(noise(9, 9, 3), 6).shape == (6, 6, 3)


def test_lazy_sources_agree(tmp_path: Path) -> None:
    arrays = [noise(12, 12, seed=0), noise(12, 12, 3, seed=1), noise(12, 12, seed=2)]
    paths = []
    for index, array in enumerate(arrays):
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(encode(array))
    encoded = EncodedImages([p.read_bytes() for p in paths], ["a", "b", "c"])
    files = FileImages(paths)
    rows = np.array([2, 1])
    batch = files.batch(rows)
    assert batch.shape == (2, 3, 12, 12) and str(batch.dtype) == "torch.uint8"
    np.testing.assert_array_equal(batch[1].permute(1, 2, 0).numpy(), arrays[1])
    np.testing.assert_array_equal(batch[0, 2].numpy(), arrays[2])
    assert (encoded.batch(rows) == batch).all()
    for source in (files.select(rows), encoded.select(rows)):
        assert len(source) == 2 and (source.batch(np.arange(2)) == batch).all()
    assert FileImages(paths, image_size=6).batch(rows).shape == (2, 3, 6, 6)
