"""What a log and a terminal show, and how often."""

from __future__ import annotations

import io
import itertools
import logging
import sys
from pathlib import Path

import pytest
from rich.console import Console

from callbacks.recording import progress_display
from callbacks.recording.progress_display import (
    Beat,
    Display,
    LogDisplay,
    TerminalDisplay,
    choose_display,
)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress_display.time, "monotonic", found)
    return found


def test_lines_come_early_then_seldom() -> None:
    beat = Beat(0.0)
    due = [second for second in range(86_400) if beat.is_due(float(second))]
    assert due[0] == 10 and due[1] == 20
    assert all(b - a <= 600 for a, b in itertools.pairwise(due))
    assert 140 < len(due) < 200  # a day


def test_a_log_gets_count_rate_and_time_left(clock: Clock) -> None:
    file = io.StringIO()
    display = LogDisplay(file)
    with display.task("filling the pool", 224, "faces") as task:
        for _ in range(4):
            clock.now += 5
            task.advance(56)
    assert file.getvalue().splitlines() == [
        "filling the pool: 112/224 faces, 11.2/s, 0:10 left",
        "filling the pool: 224 faces in 0:20, 11.2/s",
    ]


def test_what_was_there_before_does_not_count_into_the_rate(clock: Clock) -> None:
    file = io.StringIO()
    with LogDisplay(file).task("synthetic set", 100, "faces", done=50) as task:
        clock.now += 100
        task.advance(5)
    assert file.getvalue().splitlines()[0] == "synthetic set: 55/100 faces, 20 s each, 15:00 left"


def test_validations_inside_a_fit_leave_a_log_alone(clock: Clock) -> None:
    file = io.StringIO()
    with LogDisplay(file).task("validation", 5, "batches", tells_end=False, brief=True) as task:
        clock.now += 100
        task.advance()
    assert file.getvalue() == ""


def test_the_run_is_told_of_only_where_nothing_else_was(clock: Clock) -> None:
    file, made = io.StringIO(), []

    def line() -> str:
        made.append(1)
        return "step"

    display = LogDisplay(file)
    for _ in range(100):
        clock.now += 0.5
        display.run(0.1, line)
    said = file.getvalue().count("step")
    assert said == len(made) and 2 <= said <= 5  # the figures of the other steps were never made
    display.say("epoch 1")
    clock.now += 9
    display.run(0.1, line)
    display.run(0.1, line)
    clock.now += 5
    display.run(0.1, line)
    assert file.getvalue().count("step") == said


def test_a_closed_pipe_does_not_end_a_training() -> None:
    file = io.StringIO()
    file.close()
    LogDisplay(file).say("still here")


def test_a_terminal_gets_bars_that_go_away_and_lines_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_display, "REFRESH_S", 0.0)
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=90, highlight=False, color_system=None)
    display = TerminalDisplay(console)
    display.run(0.5, lambda: "epoch 1/2 · step 5/10")
    with display.task("validation", 2, "batches", tells_end=False) as task:
        task.advance(2)
    display.say("epoch 1/2 · val/accuracy [0.5]")
    display.stop()
    text = file.getvalue()
    assert "training" in text and "step 5/10" in text and "2/2 batches" in text
    assert "epoch 1/2 · val/accuracy [0.5]" in text
    assert max(len(line) for line in text.splitlines() if "\x1b" not in line) <= 90


def test_a_logger_made_before_writes_above_the_bar_and_gets_its_stream_back() -> None:
    logger = logging.getLogger("lightning.pytorch")
    handler = logging.StreamHandler(sys.__stderr__)
    logger.addHandler(handler)
    try:
        display = TerminalDisplay(Console(file=io.StringIO(), force_terminal=True, width=80))
        with display.task("faces", 2, "faces"):
            assert handler.stream is not sys.__stderr__
        display.stop()
        assert handler.stream is sys.__stderr__
    finally:
        logger.removeHandler(handler)


def test_who_shows_what(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        assert type(choose_display(True, True, file)) is LogDisplay
        assert type(choose_display(True, False, file)) is Display
    silent = Display()
    silent.say("nothing")
    with silent.task("nothing", 1, "faces") as task:
        task.advance()
