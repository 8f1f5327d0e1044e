"""What a user is told when something goes wrong: one line and an exit code.

Imports neither torch nor Lightning, so that programs without them share it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.command_line.project import PROJECT
from synfer.foundation.file_reading import plain_reason


@contextlib.contextmanager
def one_line_errors(exit_code: int, any_origin: bool = False) -> Iterator[None]:
    """Turns an error that a user can do something about into one line on stderr and an exit code.

    That is what our code raised on purpose, what the machine refuses (space, permission, memory), and what a library
    says about a file. The net beneath: code that reads a file says more itself (``synfer/foundation/file_reading.py``).

    Args:
        exit_code: 2 for the configuration, 1 for the run.
        any_origin: take errors of other packages as well, such as timm's for an unknown backbone.

    Raises:
        SystemExit: with the exit code, after the line. A bug passes through, and so does every error under
            ``SYNFER_DEBUG=1``.
    """
    try:
        yield
    except Exception as error:
        line = None if debugging() else explain(error, any_origin)
        if line is None:
            raise
        report(line)
        raise SystemExit(exit_code) from None


def exit_code_of(command: Callable[[], object], in_words: Callable[[str], str] = str) -> int:
    """Returns the exit code of a command that is no training: its own where it gives one, else 0.

    Args:
        command: runs it.
        in_words: makes of an error's line what this command's users read.

    Returns:
        2 after one line on stderr about an error of any origin.

    Raises:
        Exception: a bug, and every error under ``SYNFER_DEBUG=1``.
    """
    try:
        return int(command() or 0)  # type: ignore[call-overload]
    except Exception as error:
        line = None if debugging() else explain(error, any_origin=True)
        if line is None:
            raise
        report(in_words(line))
        return 2


def explain(error: Exception, any_origin: bool = False) -> str | None:
    """Returns what a user is told about an error, None for a bug, whose traceback says more.

    Args:
        error: as it arrived.
        any_origin: take the words of errors of other packages as well, such as timm's for an unknown backbone.
    """
    system = _of_the_system(error)
    if system is not None:
        return system
    ours = isinstance(error, (ValueError, TypeError, RuntimeError, OSError)) or _is_misconfiguration(error)
    if ours and _meant_for_the_user(error) and str(error).strip():
        return str(error)
    place = _file_being_read(error)
    if place is not None and (_from_a_reader(error) or (any_origin and _is_python_s_own(error))):
        return f"'{place}': {plain_reason(error)}, expected a whole file of the kind that belongs there"
    if ours and any_origin:
        return str(error) if str(error).strip() else plain_reason(error)
    return None


def _of_the_system(error: Exception) -> str | None:
    """Returns a line about what the machine refuses: space, permission, memory."""
    text = str(error)
    if "out of memory" in text and type(error).__name__ in ("OutOfMemoryError", "RuntimeError", "AcceleratorError"):
        said = " ".join(text.split())[:160]
        return f"the device's memory is full ({said}): expected a smaller data.batch_size or model.image_size"
    # What writes an archive stumbles over itself once the disk is full: the system's own words came before.
    earlier = None if isinstance(error, OSError) else error.__context__
    while earlier is not None:
        if isinstance(earlier, OSError) and earlier.errno in _REFUSALS:
            return _of_the_system(earlier)
        earlier = earlier.__context__
    # torch writes checkpoints in C++, which keeps the system's reason to itself.
    if any(words in text for words in ("PytorchStreamWriter failed", "inline_container.cc", "iostream error")):
        where = os.environ.get("SYNFER_RUN_DIR", "the run folder")
        return f"'{where}': a checkpoint cannot be written{_free_space(where)}, expected room for it"
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return None
    found, expected = _REFUSALS[error.errno]
    named = [str(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes, Path))]
    where = named[0] if named else str(_file_being_read(error) or os.environ.get("SYNFER_RUN_DIR", "a file"))
    if error.errno == errno.ENOSPC:
        found += _free_space(where)
    return f"'{where}': {found}, expected {expected}"


_REFUSALS = {
    errno.ENOSPC: ("found no space left on the disk", "room for what is written there (or another --run_dir)"),
    errno.EDQUOT: ("found the disk quota used up", "room for what is written there (or another --run_dir)"),
    errno.EFBIG: ("found a limit on the size of files", "room for what is written there (or another --run_dir)"),
    errno.EROFS: ("found a file system that is read-only", "one that can be written to (or another --run_dir)"),
    errno.ENOENT: ("found no such file or folder", "one there"),
    errno.EACCES: ("found no permission", "a file or folder that may be read and written"),
    errno.EPERM: ("found no permission", "a file or folder that may be read and written"),
    errno.EIO: ("found a disk that does not answer (input/output error)", "a disk that works"),
    errno.ESTALE: ("found a network disk that has lost the file", "a disk that works"),
    errno.EMFILE: ("found too many open files", "a higher limit (ulimit -n) or fewer data.num_workers"),
    errno.ENOLCK: ("found a file system without locks", "one that knows flock, such as a local disk"),
    errno.EISDIR: ("found a folder", "a file"),
    errno.ENOTDIR: ("found a file where a folder should be", "a folder"),
}


def _free_space(where: str) -> str:
    folder = Path(where).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MB are free)"
    except OSError:
        return ""


_READERS = ("pyarrow", "safetensors", "zipfile", "zlib", "PIL", "yaml", "json", "pickle", "_pickle", "csv", "_csv")


def _from_a_reader(error: Exception) -> bool:
    """Whether an error is one that a library of a file format raises about what is in a file."""
    kinds = [kind.__module__.partition(".")[0] for kind in type(error).__mro__]
    by_arrow = isinstance(error, OSError) and error.errno is None  # pyarrow's for pages that it cannot decode
    return by_arrow or isinstance(error, (UnicodeDecodeError, EOFError)) or any(name in _READERS for name in kinds)


def _is_python_s_own(error: Exception) -> bool:
    return isinstance(error, (KeyError, AttributeError, IndexError, TypeError))


_PLACES = ("path", "file", "shard", "table", "folder", "place", "root")
"""What our functions call the file that they read."""


def _file_being_read(error: Exception) -> Path | None:
    """Returns the file that the innermost function of ours was about when an error came up in it."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if _is_ours(frame.f_code.co_filename):
            values = [frame.f_locals.get(name) for name in _PLACES]
            named = [Path(value) for value in values if isinstance(value, (str, Path)) and Path(value).exists()]
            found = named[0] if named else found
    return found


def report(message: str) -> None:
    """Prints one line on stderr; other ranks wait first, for rank 0 mostly meets the same error and ends them."""
    rank = this_rank()
    _said[:] = [message]
    if rank > 0:
        time.sleep(2)
    # An error in a data worker arrives with the worker's whole traceback in its text; the last line is the error.
    if "Original Traceback" in message:
        message = message.strip().splitlines()[-1].partition(": ")[2]
    line = " ".join(_without_type_listing(message).split())
    _said[:] = [line]
    print(f"error: {line}" if rank == 0 else f"error on rank {rank}: {line}", file=sys.stderr, flush=True)


_said: list[str] = []


def last_report() -> str | None:
    """Returns what this process has reported last; None = nothing."""
    return _said[0] if _said else None


def debugging() -> bool:
    """Whether ``SYNFER_DEBUG=1`` asks for tracebacks."""
    return os.environ.get("SYNFER_DEBUG", "") not in ("", "0")


def this_rank() -> int:
    """Returns the rank of this process; 0 before ranks are known."""
    module = sys.modules.get("lightning.fabric.utilities.rank_zero")
    return getattr(getattr(module, "rank_zero_only", None), "rank", None) or 0


def _without_type_listing(message: str) -> str:
    """Returns a parser's message without what it says about Python types that the value could also have had."""
    lines = [line.strip() for line in message.splitlines()]
    noise = (
        "Subtypes:",
        "Errors:",
        "Given value type:",
        "Given value: Namespace",
        "Given value: NestedArg",
        "Does not validate against any of the Union",
        "- Does not validate against any of the Union",
        "- Expected a <class 'NoneType'>",
    )
    kept = [line for line in lines if not line.startswith(noise)]
    return re.sub(r"<class '(\w+)'>", r"\1", " ".join(kept).removeprefix("- "))


def _is_misconfiguration(error: BaseException) -> bool:
    return any(kind.__name__ == "MisconfigurationException" for kind in type(error).__mro__)  # Lightning's


def _meant_for_the_user(error: BaseException) -> bool:
    """Whether an error was raised by a line of ours (also inside a data worker) or names a file that is missing."""
    if isinstance(error, FileNotFoundError) or _is_misconfiguration(error):
        return True
    if "Original Traceback" in str(error):
        places = [line.split('"')[1] for line in str(error).splitlines() if line.strip().startswith('File "')]
        origin = places[-1] if places else ""
    else:
        frames = traceback.extract_tb(error.__traceback__)
        origin = frames[-1].filename if frames else ""
    return _is_ours(origin)


def _is_ours(source: str) -> bool:
    """Whether a source file belongs to this project."""
    path = Path(source)
    return path.is_relative_to(PROJECT) and not {"site-packages", "tests"} & set(path.parts[len(PROJECT.parts) :])
