from __future__ import annotations

import io

from experiments.label.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_outside_of_a_terminal_there_is_a_line_per_thousand() -> None:
    stream = io.StringIO()
    progress = Progress(2500, "pictures", stream=stream)
    for _ in range(2500):
        progress.add(1)
    progress.end()
    lines = stream.getvalue().splitlines()
    assert [line.split(",  ")[0][:23] for line in lines] == ["1,000 of 2,500 pictures", "2,000 of 2,500 pictures"]
    assert all("/s, 0:0" in line and line.endswith("left") for line in lines)


def test_a_terminal_has_one_line_that_goes_in_the_end() -> None:
    stream = Terminal()
    progress = Progress(None, "pictures", stream=stream)
    progress.add(3)
    progress.interrupt("cannot be used: a.png")
    progress.end()
    text = stream.getvalue()
    assert "3 pictures, " in text and "\r\x1b[2Kcannot be used: a.png\n" in text and text.endswith("\r\x1b[2K")
