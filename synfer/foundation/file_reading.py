"""Reading a file that a user gives: whatever a library says about a damaged or foreign one becomes one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileError(ValueError):
    """A file that cannot be used: one line with what it should be, where, what was found and what was expected."""


@contextmanager
def reading(kind: str, path: str | Path, expected: str) -> Iterator[None]:
    """Turns any error inside the ``with`` block into one line that names the file.

    An error whose line names this file (or another one, of something read on the way) passes through as it is.

    Args:
        kind: what the file should be, the first words of the line: "classifier checkpoint".
        path: the file or folder.
        expected: what should be there, for the end of the line: "one written by training".

    Raises:
        FileNotFoundError: nothing is there.
        FileError: anything else; the error itself is its cause.
    """
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        named = isinstance(error, (ValueError, FileNotFoundError)) and str(path) in str(error)
        if named and getattr(error, "errno", None) is None:
            raise
        if isinstance(error, FileNotFoundError):
            if error.errno is None:  # ours, about another file
                raise
            missing = error.filename if isinstance(error.filename, str) else path
            raise FileNotFoundError(f"{kind} '{path}': found no file '{missing}', expected {expected}") from error
        said = " ".join(str(error).split())
        if isinstance(error, ValueError) and ": found " in said and ", expected " in said:  # a line of ours
            raise FileError(f"{kind} '{path}': {said}") from error
        raise FileError(f"{kind} '{path}': {plain_reason(error)}, expected {expected}") from error


def one_line(error: BaseException) -> str:
    """Returns what an error says on one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def plain_reason(error: BaseException, length: int = 200) -> str:
    """Returns what an error says, without the words that only Python understands.

    Args:
        error: of any library.
        length: longest answer in characters.
    """
    text = " ".join(str(error).split())
    if "in loading state_dict for" in text:
        return f"its weights do not fit: {_misfit(text)}"
    if isinstance(error, UnicodeDecodeError):
        return f"found bytes that are no UTF-8 text (at byte {error.start})"
    if isinstance(error, UnicodeEncodeError):
        return "found characters that cannot be text"
    if isinstance(error, json.JSONDecodeError):
        if not error.doc.strip():
            return "found an empty file" if not error.doc else "found nothing but blanks"
        return f"found no JSON ({error.msg} at line {error.lineno}, column {error.colno})"
    if "Parquet magic bytes not found" in text or "smaller than the minimum file footer" in text:
        return "found a file that is not Parquet"
    if type(error).__module__.startswith("yaml"):
        return f"found no YAML ({_yaml_reason(text)[:length]})"
    if isinstance(error, RecursionError):
        return "found values nested too deeply"
    if isinstance(error, MemoryError):
        return "found a size that does not fit into the memory"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({(error.strerror or 'unknown reason').lower()})"
    if isinstance(error, KeyError):
        return f"found no entry {_first_argument(error)}"
    for pattern, said in _ARGUMENTS.items():
        if named := re.search(pattern, text):
            return f"{said} '{named[1]}'"
    if isinstance(error, (AttributeError, TypeError, IndexError, AssertionError, OverflowError)) or _python_words(text):
        return "found another content" + ("" if not text or _python_words(text) else f" ({text[:length]})")
    if type(error).__name__ in ("EOFError", "BadZipFile"):
        return "found the file cut off or overwritten"
    return f"cannot be read ({text[:length] or type(error).__name__})"


def did_you_mean(word: str, known: list[str], count: int = 1) -> str:
    """Returns ", did you mean …?" with the known words most like this one; "" where none is."""
    import difflib

    near = difflib.get_close_matches(word, known, n=count)
    return f", did you mean {' or '.join(near)}?" if near else ""


_ARGUMENTS = {
    r"unexpected keyword argument '(\w+)'": "found the unknown key",
    r"missing \d+ required .*?argument.*?: '(\w+)'": "found no entry",
}
_PYTHON = re.compile(
    r"object has no attribute|NoneType|not subscriptable|not iterable|unhashable|positional argument|unexpected keyword"
    r"|takes \d+|indices must be|unsupported operand|object is not|must be real number|too many values to unpack"
    r"|not enough values to unpack|invalid literal|argument of type|<class|__\w+__|codec can't decode"
)


def _yaml_reason(text: str) -> str:
    """Returns what PyYAML says without its name for text that has none, and without what it quotes."""
    return re.sub(r' in "<[\w ]+>",', " at", text.partition(" in the file")[0])


def _misfit(text: str) -> str:
    """Returns the first thing that torch says against the tensors of a file."""
    sizes = re.search(r"size mismatch for (\S+): .*?\.Size\(\[([\d, ]*)\]\).*?\.Size\(\[([\d, ]*)\]\)", text)
    if sizes is not None:
        return f"'{sizes[1]}' has the shape ({sizes[2]}), the network ({sizes[3]})"
    missing = re.search(r'Missing key\(s\) in state_dict: "([^"]+)"', text)
    unexpected = re.search(r'Unexpected key\(s\) in state_dict: "([^"]+)"', text)
    said = [f"found no '{missing[1]}'"] if missing is not None else []
    said += [f"found '{unexpected[1]}', which the network has not"] if unexpected is not None else []
    return ", ".join(said) or text[:160]


def _python_words(text: str) -> bool:
    return _PYTHON.search(text) is not None


def _first_argument(error: KeyError) -> str:
    return f"'{str(error.args[0])[:80]}'" if error.args else "that belongs there"
