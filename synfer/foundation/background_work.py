"""Work that goes on beside the caller's own, in order, and never far behind it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class BackgroundWork:
    """One thread that does what it is given, one thing after the other.

    An error ends it: what was given after it is dropped, and the error is raised by the next call of ``give`` or
    ``finish``, as it is. Work that has not been done when the process is killed is lost.

    Args:
        waiting: pieces of work that may wait, ≥ 1; ``give`` waits while there are as many, so that memory is bounded.
    """

    def __init__(self, waiting: int = 2) -> None:
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="background work", daemon=True)
        self._thread.start()

    def give(self, work: Callable[[], object]) -> None:
        """Hands over a piece of work.

        Raises:
            BaseException: that of an earlier piece.
        """
        self._raise()
        self._queue.put(work)

    def finish(self) -> None:
        """Waits until all that was given has been done.

        Raises:
            BaseException: that of a piece.
        """
        self._queue.join()
        self._raise()

    def close(self) -> None:
        """Ends the thread once it has done what was given; its error, if any, is dropped."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    @property
    def failed(self) -> bool:
        """Whether a piece of work has raised an error."""
        return self._error is not None

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            try:
                if work is None:
                    return
                if self._error is None:
                    work()
            except BaseException as error:  # told to whoever gave it
                self._error = error
            finally:
                del work  # what it holds must not outlast it
                self._queue.task_done()
