"""Images decode exactly, and a bad one is named in one line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.rows.images import (
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


def _saved(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
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


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparent_pixels_are_black_and_opaque_ones_as_stored(mode: str) -> None:
    """Left half transparent over a bright colour, right half opaque."""
    colour = noise(8, 8, 3) // 64 * 36 + 128  # few enough colours for a palette
    opened = Image.fromarray(colour)
    more: dict[str, Any] = {}
    if mode in ("RGBA", "LA"):
        opened = opened.convert(mode[:-1])
        opened.putalpha(Image.fromarray(np.repeat(np.array([[0] * 4 + [255] * 4], np.uint8), 8, axis=0)))
    else:  # one colour of the picture is transparent
        colour[:, :4] = 200
        colour[:, 4:] = np.minimum(colour[:, 4:], 140)
        opened = Image.fromarray(colour).convert(mode, dither=Image.Dither.NONE)
        first = opened.getpixel((0, 0))
        more["transparency"] = first
    expected = np.array(opened.convert("RGB" if mode in ("RGBA", "P", "RGB") else "L"))
    expected[:, :4] = 0
    found = decode_image(_saved(opened, **more), "x")
    np.testing.assert_array_equal(found, expected)


def test_half_transparent_pixels_fade_to_black() -> None:
    opened = Image.fromarray(np.full((4, 4, 3), 200, np.uint8))
    opened.putalpha(128)
    assert (decode_image(_saved(opened), "x") == 100).all()


def test_opaque_pictures_keep_their_pixels() -> None:
    grey, colour = noise(9, 9), noise(9, 9, 3)
    for array in (grey, colour):
        np.testing.assert_array_equal(decode_image(_saved(Image.fromarray(array)), "x"), array)
        opaque = Image.fromarray(array)
        opaque.putalpha(255)
        np.testing.assert_array_equal(decode_image(_saved(opaque), "x"), array)
    few = Image.fromarray(colour // 64 * 64).quantize(64)
    np.testing.assert_array_equal(decode_image(_saved(few), "x"), np.array(few.convert("RGB")))
    cmyk = Image.fromarray(np.full((8, 8, 3), (200, 40, 90), np.uint8)).convert("CMYK")
    assert np.abs(decode_image(_saved(cmyk, "JPEG", quality=95), "x").astype(int) - (200, 40, 90)).max() <= 4
    one_bit = Image.fromarray(grey > 128)
    np.testing.assert_array_equal(decode_image(_saved(one_bit), "x"), (grey > 128) * 255)


@pytest.mark.parametrize("form", ["PNG", "PPM"])
def test_sixteen_bits_keep_their_upper_eight(form: str) -> None:
    grey = noise(9, 9)
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 255 - grey)
    found = decode_image(_saved(deep, form), "x")
    assert found.dtype == np.uint8 and np.array_equal(found, grey)


def test_pixels_of_unknown_range_are_refused() -> None:
    shares, counts = np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32)
    for array, said in ((shares, "floating-point"), (counts, "32-bit")):
        with pytest.raises(BadImageError, match=rf"row 3: found .*\(pixels of {said} .*, expected 8 or 16 bits\)"):
            decode_image(_saved(Image.fromarray(array), "TIFF"), "row 3")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = noise(6, 9, 3)
    expected = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.swapaxes(0, 1),
        6: np.rot90(array, -1),
        7: np.rot90(array.swapaxes(0, 1), 2),
        8: np.rot90(array),
    }[orientation]
    np.testing.assert_array_equal(decode_image(_saved(Image.fromarray(array), exif=exif), "x"), expected)


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
