"""What a rank is told where another one has gone, in the words of the libraries that connect them."""

from __future__ import annotations

_WORDS = ("Connection closed by peer", "Connection reset by peer")


def is_lost_connection(said: object) -> bool:
    """Whether an error, or its text, says that another rank has gone: not which one, nor why."""
    return any(words in str(said) for words in _WORDS)
