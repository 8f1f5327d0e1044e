"""Ranks meet at a store: one decides, hosts need not agree beforehand, and each hears when another has gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed import TCPStore

from experiments.cluster import meeting as meeting_module
from experiments.cluster.launch import Launch
from experiments.cluster.meeting import EndedElsewhereError, Meeting

MADE: list[Meeting] = []


@pytest.fixture
def agent_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[TCPStore]:
    """What torchrun keeps for its ranks over all their starts."""
    store = TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=20), wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setattr(meeting_module, "BEAT_S", 0.05)
    monkeypatch.setattr(meeting_module, "GRACE_S", 0.1)
    monkeypatch.setattr(meeting_module, "_NOT_HEARD_S", 1.0)
    yield store
    while MADE:  # their watches outlive the test, and what it has put in place of ending the process
        MADE.pop()._closed.set()
    time.sleep(0.2)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, int]]:
    """What the watches of ranks would have ended their processes with: (rank, line, code)."""
    found: list[tuple[int, str, int]] = []

    def end(self: Meeting, line: str, code: int) -> None:
        found.append((self.launch.rank, line, code))
        self.on_lost(line)
        self._closed.set()

    monkeypatch.setattr(Meeting, "_end_process", end)
    return found


def ranks(number: int, silence_s: float = 30.0, arrival_s: float = 20.0) -> list[Meeting]:
    made = [Meeting(Launch("torchrun", rank, number), arrival_s, silence_s) for rank in range(number)]
    MADE.extend(made)
    return made


def agree(meetings: list[Meeting], decide: Callable[..., Mapping[str, Any]]) -> list[Any]:
    """Has all ranks agree, the last one first, and returns what each got, or was raised to it."""
    found: list[Any] = [None] * len(meetings)

    def one(place: int) -> None:
        try:
            found[place] = meetings[place].agree(decide)
        except BaseException as error:
            found[place] = error
            line = None if isinstance(error, EndedElsewhereError) else str(error)
            meetings[place].close(2, line)

    threads = [threading.Thread(target=one, args=(place,)) for place in reversed(range(len(meetings)))]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(20)
    return found


def wait_until(happened: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_all_ranks_take_the_first_one_s_word_and_a_restart_knows_the_word_before(agent_store: TCPStore) -> None:
    asked = []

    def decide(launch: str, start: int, before: Mapping[str, Any]) -> dict[str, Any]:
        asked.append((launch, start, dict(before)))
        return {"run_dir": before.get("run_dir", f"runs/{start}")}

    for start in (1, 2, 3):  # the hosts' own counts of restarts are not asked for
        meetings = ranks(3)
        assert agree(meetings, decide) == [{"run_dir": "runs/1"}] * 3
        assert [meeting.start for meeting in meetings] == [start] * 3
        for meeting in meetings:
            meeting.close(0)
    assert len({launch for launch, *_ in asked}) == 1
    assert [before for *_, before in asked] == [{}, {"run_dir": "runs/1"}, {"run_dir": "runs/1"}]


def test_a_refusal_ends_all_ranks(agent_store: TCPStore) -> None:
    def refuse(*start: Any) -> dict[str, Any]:
        raise ValueError("run_dir 'x': found another run")

    began = time.monotonic()
    first, *others = agree(ranks(3), refuse)
    assert isinstance(first, ValueError)
    assert all(isinstance(error, EndedElsewhereError) and error.code == 2 for error in others)
    assert time.monotonic() - began < 10


def test_an_error_of_one_rank_ends_the_others_with_its_line(
    agent_store: TCPStore, ended: list[tuple[int, str, int]]
) -> None:
    meetings = ranks(3)
    agree(meetings, lambda *start: {})
    noted: list[str] = []
    meetings[0].on_lost = noted.append
    meetings[2].close(2, "data.reader: found no folder 'x'")
    wait_until(lambda: len(ended) == 2)
    assert sorted(rank for rank, *_ in ended) == [0, 1] and {code for *_, code in ended} == {2}
    assert all(line.startswith("rank 2 (") and line.endswith("no folder 'x'") for _, line, _ in ended)
    assert len(noted) == 1


def test_a_rank_that_gives_no_sign_of_life_is_named(agent_store: TCPStore, ended: list[tuple[int, str, int]]) -> None:
    meetings = ranks(3, silence_s=1.5)
    agree(meetings, lambda *start: {})
    wait_until(lambda: set(meetings[0]._heard) == {1, 2})
    meetings[1]._closed.set()  # as if it had been killed
    assert "rank 1 (" in str(meetings[0].who_has_gone())  # a broken connection does not wait for the whole time-out
    wait_until(lambda: {rank for rank, *_ in ended} >= {2})
    assert "rank 1 (" in ended[0][1] and "no sign of life" in ended[0][1] and ended[0][2] == 1


def test_a_store_that_does_not_answer_ends_a_rank_all_the_same(
    agent_store: TCPStore, ended: list[tuple[int, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut cable: the question has no answer and no end, in whatever thread it was asked."""
    meetings = ranks(2, silence_s=1.0)
    agree(meetings, lambda *start: {})
    wait_until(lambda: 0 in meetings[1]._heard)
    hangs = threading.Event()

    def hang(*question: object) -> int:
        hangs.wait(30)
        raise RuntimeError("the connection is gone")

    monkeypatch.setattr(meetings[1], "_store", SimpleNamespace(add=hang))
    wait_until(lambda: any(rank == 1 for rank, *_ in ended))
    line = next(line for rank, line, _ in ended if rank == 1)
    assert "was cut off from rank 0 (" in line and "no answer for 1 s" in line
    assert "was cut off" in str(meetings[1].who_has_gone())
    hangs.set()


def test_rank_zero_may_be_the_one_that_is_lost(agent_store: TCPStore, ended: list[tuple[int, str, int]]) -> None:
    meetings = ranks(2, silence_s=1.0)
    agree(meetings, lambda *start: {})
    wait_until(lambda: 0 in meetings[1]._heard)
    meetings[0]._closed.set()
    wait_until(lambda: ended)
    assert ended[0][0] == 1 and ended[0][1].startswith("rank 0 (")


def test_ranks_that_end_in_order_alarm_nobody(agent_store: TCPStore, ended: list[tuple[int, str, int]]) -> None:
    meetings = ranks(3, silence_s=0.5)
    agree(meetings, lambda *start: {})
    wait_until(lambda: set(meetings[0]._heard) == {1, 2})
    meetings[2].close(0)
    meetings[0].close(143)  # stopped together
    time.sleep(1.5)
    assert not ended
    meetings[1].close(0)


def test_a_rank_that_never_comes_is_named(agent_store: TCPStore, ended: list[tuple[int, str, int]]) -> None:
    first = ranks(2, arrival_s=0.5)[0]
    first.agree(lambda *start: {})
    wait_until(lambda: ended)
    assert "rank 1 of 2 has not come" in ended[0][1]
    late = Meeting(Launch("torchrun", 1, 2), 0.5, 30.0)
    with pytest.raises(ValueError, match=r"has waited 0\.5 s for rank 0"):
        late.agree(lambda *start: {})
    first._keeps, began = True, time.monotonic()  # as under SLURM, where rank 0 stays until the others have heard
    first._closed.clear()
    first.close(1, ended[0][1])
    assert time.monotonic() - began < 5  # and does not wait for who is not on its way


def test_a_store_that_nobody_keeps_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_NODELIST", "localhost")
    monkeypatch.setenv("SYNFER_MEETING_PORT", "1")
    with pytest.raises(ValueError, match="has not reached rank 0 at localhost:1"):
        Meeting(Launch("slurm", 1, 2), 0.3, 1.0)
