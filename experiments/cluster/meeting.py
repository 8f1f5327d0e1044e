"""Where ranks meet that torchrun or SLURM has started: one decides for all, and each hears when another has ended.

A process group comes to life late, and a rank that ends before leaves the others waiting in it; one whose host has gone
leaves them waiting until the group's time-out. So the ranks meet at a small key-value store before anything is made,
and stay in touch through it by a thread of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn

from torch.distributed import Store, TCPStore

from experiments.cluster.launch import Launch, meeting_place, store_of_restart

ROOT = "synfer"
BEAT_S = 0.5
"""How often a rank gives a sign of life and looks for those of others."""

LINGER_S = 60.0
"""How long rank 0 waits for the others at its end, so that all hear why."""

SAVING_S = 150.0
"""How long the others wait at a signal for rank 0, which sends to W&B what is left and queues the job again."""

GRACE_S = 3.0
"""Time in which a rank that has lost another may say so itself, before it is ended."""

_NOT_HEARD_S = 5.0
"""After an error of the connection a rank that has been silent for so long is the one that is gone."""


Decide = Callable[[str, int, Mapping[str, Any]], Mapping[str, Any]]
"""(name of the launch, number of its start, word of the start before) → word."""


class EndedElsewhereError(SystemExit):
    """Another rank has ended the run, and said why."""


class Meeting:
    """The meeting of the ranks of one start of a job.

    Every start is told from the ones before by a number that rank 0 draws from the store, which torchrun keeps over its
    restarts; hosts need not agree on anything beforehand. Rank 0 greets each rank by the number: a rank that shows up
    gives a random word, and whoever is greeted under it belongs to this start.

    Args:
        launch: with ranks that meet.
        arrival_s: how long to wait for a rank that has not come.
        silence_s: after how long without a sign of life a rank is lost.

    Attributes:
        group_store: variables by which the process group of this start meets; {} = those that are set.

    Raises:
        ValueError: no store can be reached or kept; one line.
    """

    def __init__(self, launch: Launch, arrival_s: float, silence_s: float) -> None:
        self.launch = launch
        self.arrival_s = arrival_s
        self.silence_s = silence_s
        self.start = 0
        self.group_store: dict[str, str] = {}
        self.on_lost: Callable[[str], None] = lambda line: None
        self._closed = threading.Event()
        self._is_ending = threading.Event()
        self._said_end = False
        self._store, self._keeps = _open(launch, arrival_s)
        self._beating = threading.Thread(target=self._beat, name="meeting", daemon=True)
        self._lock = threading.Lock()  # one question at a time, and the answer to it
        self._heard: dict[int, tuple[int, float]] = {}  # rank → (signs of life, when the last one was new)
        self._greeted: dict[int, str] = {}
        self._places: dict[int, str] = {}  # rank → its host and process
        self._others_ends: list[dict[str, Any]] = []  # what they have said, errors first
        self._lost_line: str | None = None
        self._since = self._contact = time.monotonic()

    # ------------------------------------------------------------------ the start

    def agree(self, decide: Decide) -> dict[str, Any]:
        """Returns what rank 0 has decided, on every rank, and learns where the process group meets.

        Args:
            decide: called on rank 0 alone, with a name of this launch, which all its starts share, the number of this
                start, from 1, and what was decided at the start before; returns plain types.

        Raises:
            EndedElsewhereError: rank 0 refuses; it has said why.
            ValueError: rank 0 does not come; one line. And on rank 0 whatever ``decide`` raises.
        """
        if self.launch.rank == 0:
            own = secrets.token_hex(8)
            launch_name = self._call(lambda store: store.compare_set(f"{ROOT}/launch", "", own).decode())
            self.start = self._count(f"{ROOT}/starts", 1)
            self._introduce()
            self._beating.start()
            word = dict(decide(launch_name, self.start, self._word_before()))
            self._set("group", json.dumps(store_of_restart(self.launch, self.start)))
            self._set("word", json.dumps(word))
        else:
            own = secrets.token_hex(8)
            self._call(partial(_write, f"{ROOT}/hello/{self.launch.rank}", own))
            self.start = int(self._wait_for(f"{ROOT}/answer/{own}"))
            self._introduce()
            self._beating.start()
            word = json.loads(self._wait_for(self._key("word")))
        self.group_store = json.loads(self._read(self._key("group")) or "{}")
        threading.Thread(target=self._watch, name="meeting watch", daemon=True).start()
        return dict(word)

    def _word_before(self) -> dict[str, Any]:
        return dict(json.loads(self._read(f"{ROOT}/{self.start - 1}/word") or "{}"))

    def _introduce(self) -> None:
        self._set(f"who/{self.launch.rank}", self.launch.place)

    def _wait_for(self, key: str) -> str:
        """Waits for a word of rank 0; signals are heard meanwhile."""
        deadline = time.monotonic() + self.arrival_s
        while time.monotonic() < deadline:
            try:
                if self.start and (ends := self._ends()):
                    raise EndedElsewhereError(_code_of(ends[0]))
                if (word := self._read(key)) is not None:
                    return word
            except RuntimeError:  # the store is gone, and rank 0 with it
                raise ValueError(
                    f"launch: rank {self.launch.rank} ({self.launch.place}) has lost rank 0 before the run began, "
                    "expected it to say where the run lives; its own error stands where rank 0 writes"
                ) from None
            time.sleep(0.1)
        raise ValueError(
            f"launch: rank {self.launch.rank} ({self.launch.place}) has waited {self.arrival_s:g} s for rank 0, "
            "expected it to come (cluster.arrival_s)"
        )

    # ------------------------------------------------------------------ the end

    def close(self, code: int, line: str | None = None) -> None:
        """Ends this rank's part; rank 0 stays until all others have ended theirs, or for a minute.

        Args:
            code: exit code of this process.
            line: why this rank ended before the others; None = all end together, or somebody else was first.
        """
        if self._said_end:
            return
        self._said_end = True
        self._is_ending.set()
        is_stopped = code > 128 and line is None
        # The store may stop answering now, and a question to it has no time-out.
        guard = threading.Timer(SAVING_S + LINGER_S if is_stopped else LINGER_S + GRACE_S, os._exit, [code])
        guard.daemon = True
        guard.start()
        with contextlib.suppress(RuntimeError, ValueError):
            if self.start and not self._is_quiet():
                end = {"rank": self.launch.rank, "place": self.launch.place, "code": code, "line": line}
                self._set(f"end/{self.launch.rank}", json.dumps(end))
                self._count(self._key("ends"), 1)
                if self._keeps or (self.launch.rank == 0 and line is not None):  # who is not greeted does not hear
                    self._wait_for_others()
                elif self.launch.rank != 0 and is_stopped:
                    self._wait_for_rank_zero()
        self._closed.set()
        if self._beating.is_alive():  # Python's end aborts a process in which a thread is still asking the store
            self._beating.join(GRACE_S)
        guard.cancel()

    def _wait_for_rank_zero(self) -> None:
        """Waits until rank 0 has saved all there is: a launcher may kill the others at the first exit code of 143."""
        deadline = time.monotonic() + SAVING_S
        while time.monotonic() < deadline and self._read(self._key("end/0")) is None:
            time.sleep(0.1)

    def _wait_for_others(self) -> None:
        deadline = time.monotonic() + LINGER_S
        while time.monotonic() < deadline:
            gone = {end["rank"] for end in self._ends()} | set(self._silent(_NOT_HEARD_S))
            if time.monotonic() - self._since > self.arrival_s:  # who has not come by now is not on its way
                gone |= set(self._watched) - set(self._heard)
            if not set(self._watched) - gone:
                return
            time.sleep(0.1)

    def who_has_gone(self, patience_s: float = 12.0) -> str | None:
        """Returns a line about the rank that ended first or is not heard of; None where all are there.

        For a rank whose connection to another broke, while the thread goes on giving signs of life. Asks the store for
        nothing, which may be gone as well.

        Args:
            patience_s: how long to look.
        """
        self._is_ending.set()
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            for end in self._others_ends:
                if end["line"] is not None:
                    return _line_of(end)
            if self._lost_line is not None:
                return self._lost_line
            if self._is_quiet(_NOT_HEARD_S) and 0 not in self._done_before:
                return self._cut_off(_NOT_HEARD_S)
            if not self._is_quiet() and (silent := self._silent(_NOT_HEARD_S)):
                self._lost_line = self._line_of_silence(silent[0], _NOT_HEARD_S)
            time.sleep(0.2)
        return None

    # ------------------------------------------------------------------ signs of life

    def _beat(self) -> None:
        """Gives signs of life, greets and hears; whatever the store takes its time for happens here."""
        told = False
        while not self._closed.wait(BEAT_S):
            try:
                self._count(self._key(f"beat/{self.launch.rank}"), 1)
                if self.launch.rank == 0:
                    self._greet()
                self._listen()
                self._others_ends = self._ends()
                self._lost_line = self._lost_line or self._lost() or self._find_lost()
                if self._lost_line is not None and not told:
                    self._set("lost", self._lost_line)
                    told = True
                self._contact = time.monotonic()
            except (RuntimeError, ValueError):  # the watch tells how long this has been so
                continue

    def _find_lost(self) -> str | None:
        """Returns a line about a rank that is silent, or has not come."""
        if silent := self._silent(self.silence_s):
            return self._line_of_silence(silent[0], self.silence_s)
        missing = sorted(set(self._watched) - set(self._heard))
        if missing and time.monotonic() - self._since > self.arrival_s:
            found = f"rank {missing[0]} of {self.launch.world_size} has not come in {self.arrival_s:g} s"
            return f"{found} (cluster.arrival_s)"
        return None

    def _watch(self) -> None:
        """Ends this process where another rank has ended or is lost; never asks the store, which may not answer."""
        looked = time.monotonic()
        while not self._closed.wait(BEAT_S):
            now = time.monotonic()
            if now - looked > max(4 * BEAT_S, self.silence_s / 4):  # this process was stopped for a while, not others
                self._contact = now
                self._heard = {rank: (count, now) for rank, (count, _) in self._heard.items()}
            looked = now
            line, code = self._bad_news()
            if line is None:
                continue
            if self._is_ending.wait(GRACE_S):  # it says so itself; where it hangs in that, it is ended all the same
                self._closed.wait(LINGER_S)
            if self._closed.is_set() or self._said_end:
                return
            self._end_process(line, code)

    def _bad_news(self) -> tuple[str | None, int]:
        """Returns a line and an exit code where the run cannot go on; (None, 0) otherwise."""
        if self._is_quiet() and 0 in self._done_before:
            return None, 0  # rank 0 has ended in order, and its store with it
        if self._is_quiet(self.silence_s):
            return self._cut_off(self.silence_s), 1
        for end in self._others_ends:
            if end["line"] is not None:
                return _line_of(end), _code_of(end)
        return self._lost_line, 1

    def _end_process(self, line: str, code: int) -> NoReturn:
        alive = set(range(self.launch.world_size)) - self._done_before
        refused = any(end["rank"] == 0 and end["code"] == 2 for end in self._others_ends)  # said where people look
        if not refused and (self.launch.rank == min(alive, default=0) or self._is_quiet()):  # one for all, or alone
            print(f"error: {line}; all ranks end", file=sys.stderr, flush=True)
        with contextlib.suppress(Exception):
            self.on_lost(line)
        self.close(code, None)
        os._exit(code)

    @property
    def _done_before(self) -> set[int]:
        return {end["rank"] for end in self._others_ends}

    def _is_quiet(self, longer_than_s: float | None = None) -> bool:
        """Whether the store has not answered for some time."""
        quiet = time.monotonic() - self._contact
        return quiet > (max(4 * BEAT_S, 2.0) if longer_than_s is None else longer_than_s)

    def _greet(self) -> None:
        for rank in set(self._watched) - set(self._heard):
            word = self._read(f"{ROOT}/hello/{rank}")
            if word is not None and self._greeted.get(rank) != word:  # one of an earlier start is answered in vain
                self._greeted[rank] = word
                self._call(partial(_write, f"{ROOT}/answer/{word}", str(self.start)))

    @property
    def _watched(self) -> range:
        """Whose signs of life this rank looks for: rank 0 for all others', the others for its."""
        return range(1, self.launch.world_size) if self.launch.rank == 0 else range(1)

    def _listen(self) -> None:
        for rank in self._watched:
            count = self._count(self._key(f"beat/{rank}"))
            before = self._heard.get(rank)
            if count and (before is None or before[0] != count):
                if rank not in self._places:
                    self._places[rank] = self._read(self._key(f"who/{rank}")) or "?"
                self._heard[rank] = count, time.monotonic()

    def _silent(self, longer_than_s: float) -> list[int]:
        now = time.monotonic()
        return [
            rank
            for rank, (_, when) in sorted(dict(self._heard).items())
            if now - when > longer_than_s and rank not in self._done_before
        ]

    def _line_of_silence(self, rank: int, seconds: float) -> str:
        who = self._places.get(rank, "?")
        return f"rank {rank} ({who}) was lost: no sign of life for {seconds:g} s, killed or its host cut off"

    def _cut_off(self, seconds: float) -> str:
        zero = f"rank 0 ({self._places[0]})" if 0 in self._places else "rank 0"
        return (
            f"rank {self.launch.rank} ({self.launch.place}) was cut off from {zero}: no answer for {seconds:g} s, "
            "it was killed or its host cut off"
        )

    # ------------------------------------------------------------------ the store

    def _ends(self) -> list[dict[str, Any]]:
        """Returns what ranks of this start have said at their end, errors first."""
        if not self.start or not self._count(self._key("ends")):
            return []
        others = [rank for rank in range(self.launch.world_size) if rank != self.launch.rank]
        found = [text for rank in others if (text := self._read(self._key(f"end/{rank}"))) is not None]
        return sorted((json.loads(text) for text in found), key=lambda end: end["line"] is None)

    def _lost(self) -> str | None:
        return self._read(self._key("lost"))

    def _key(self, name: str) -> str:
        return f"{ROOT}/{self.start}/{name}"

    def _set(self, name: str, value: str) -> None:
        self._call(partial(_write, self._key(name), value))

    def _read(self, key: str) -> str | None:
        """Returns what stands under a key; None = nothing yet."""
        if not self._call(lambda store: store.check([key])):
            return None
        return str(self._call(lambda store: store.get(key).decode()))

    def _count(self, key: str, more: int = 0) -> int:
        return int(self._call(lambda store: store.add(key, more)))

    def _call(self, question: Callable[[Store], Any]) -> Any:
        """Asks the store; a lock that is held by a question without an answer is an error, too.

        Raises:
            RuntimeError: no answer.
        """
        if not self._lock.acquire(timeout=2.0):
            raise RuntimeError("the store does not answer")
        try:
            return question(self._store)
        finally:
            self._lock.release()


def _write(key: str, value: str, store: Store) -> None:
    store.set(key, value)


def _line_of(end: Mapping[str, Any]) -> str:
    return f"rank {end['rank']} ({end['place']}) ended: {end['line']}"


def _code_of(end: Mapping[str, Any]) -> int:
    """Returns with which code the others end: that of a refusal or a signal, else 1."""
    code = int(end["code"])
    return code if code == 2 or code > 128 else 1


def _open(launch: Launch, arrival_s: float) -> tuple[TCPStore, bool]:
    """Returns the store, and whether this process keeps it.

    Raises:
        ValueError: it cannot be kept, or not be reached in time.
    """
    host, port, keeps = meeting_place(launch)
    if keeps:
        try:
            return TCPStore(host, port, is_master=True, wait_for_workers=False), True
        except RuntimeError as error:
            raise ValueError(
                f"launch: port {port} of {host} cannot be opened for the ranks to meet at "
                f"({str(error).splitlines()[0][:120]}), expected a free one (SYNFER_MEETING_PORT=<port> on all ranks)"
            ) from None
    deadline = time.monotonic() + arrival_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5.0):
            break
        time.sleep(0.2)
    else:
        raise ValueError(
            f"launch: rank {launch.rank} ({launch.place}) has not reached rank 0 at {host}:{port} in {arrival_s:g} s, "
            "expected it to come (cluster.arrival_s; is the port open between the hosts?)"
        )
    try:
        return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=30)), False
    except RuntimeError as error:
        raise ValueError(
            f"launch: rank {launch.rank} ({launch.place}) finds no store of rank 0 at {host}:{port} "
            f"({str(error).splitlines()[0][:120]}), expected one (SYNFER_MEETING_PORT=<port> on all ranks)"
        ) from None
