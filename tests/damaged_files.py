"""Ways in which a file arrives damaged, each the same at every run."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

from PIL import Image


def _flip(content: bytes, first: float, last: float, seed: int) -> bytes:
    """Returns the content with one bit flipped somewhere between two shares of its length."""
    chance = random.Random(seed)
    damaged = bytearray(content)
    place = min(len(content) - 1, int(len(content) * chance.uniform(first, last)))
    damaged[place] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _overwrite(content: bytes, share: float, block: bytes) -> bytes:
    place = int((len(content) - len(block)) * share)
    return content[: max(0, place)] + block + content[max(0, place) + len(block) :]


def _zeros(content: bytes, share: float) -> bytes:
    return _overwrite(content, share, bytes(max(1, min(512, len(content) // 8))))


def _noise(length: int) -> bytes:
    return random.Random(7).randbytes(length)


def _picture(content: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (200, 10, 10)).save(file, "PNG" if content[:2] != b"\x89P" else "GIF")
    return file.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "a quarter": lambda content: content[: len(content) // 4],
    "half": lambda content: content[: len(content) // 2],
    "nine tenths": lambda content: content[: len(content) * 9 // 10],
    "without the last byte": lambda content: content[:-1],
    "without the first byte": lambda content: content[1:],
    "bit flipped in the first bytes": lambda content: _flip(content, 0, 16 / len(content), 1),
    "bit flipped in the head": lambda content: _flip(content, 0, 0.1, 2),
    "bit flipped in the middle": lambda content: _flip(content, 0.3, 0.7, 3),
    "another bit in the middle": lambda content: _flip(content, 0.3, 0.7, 4),
    "bit flipped in the tail": lambda content: _flip(content, 0.9, 1, 5),
    "zeros at the head": lambda content: _zeros(content, 0),
    "zeros in the middle": lambda content: _zeros(content, 0.5),
    "zeros at the tail": lambda content: _zeros(content, 1),
    "random bytes in the middle": lambda content: _overwrite(content, 0.5, _noise(min(64, len(content) // 4))),
    "random bytes": lambda content: _noise(len(content)),
    "prose": lambda content: b"The file that you asked for has moved.\nPlease ask again later.\n",
    "another object": lambda content: b'{"one": {"two": 3}}\n',
    "another encoding": lambda content: content.decode("latin-1").encode("utf-16"),
    "a picture": _picture,
}
"""Name → what becomes of the content."""
