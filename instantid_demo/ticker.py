"""Signs of life on the command line: one line rewritten in place on a terminal, a rare line where there is none."""

import shutil
import time
from typing import TextIO

from instantid_demo.request import Progress

PAUSE = 0.2
"""Seconds between two changes of the line on a terminal."""
RARE = 20.0
"""Seconds between two lines where they stay, as in a log; the first comes as late."""


class Line:
    """What happens now, on `out`."""

    def __init__(self, out: TextIO) -> None:
        """`out`: usually standard error."""
        self._out, self._last = out, time.monotonic()
        self._terminal = out.isatty()
        self._shown = 0

    def tell(self, text: str, *, now: bool = False) -> None:
        """Shows `text` in place of what was told before; `now`: however short that was ago, on a terminal."""
        since = time.monotonic() - self._last
        if not self._terminal:
            if since >= RARE:
                self._last += since
                print(text, file=self._out, flush=True)
            return
        if now or since >= PAUSE or not self._shown:
            self._last += since
            text = text[: shutil.get_terminal_size().columns - 1]
            print(f"\r{text.ljust(self._shown)}", end="", file=self._out, flush=True)
            self._shown = len(text)

    def end(self) -> None:
        """Takes the line away, so that what comes next begins a line."""
        if self._shown:
            print(f"\r{' ' * self._shown}\r", end="", file=self._out, flush=True)
        self._shown = 0


class Steps:
    """A request's signs of life as that line: step 3/30, 12 s left."""

    def __init__(self, line: Line) -> None:
        """`line`: whoever made it ends it."""
        self._line, self._total = line, 0
        self._first = self._began = 0.0

    def __call__(self, progress: Progress) -> None:
        """Shows what the request does now."""
        if progress.message:
            self._line.tell(progress.message, now=True)
        elif progress.stage == "denoising" and progress.total:
            self._line.tell(self._step(progress.done, progress.total))
        elif progress.stage == "decoding":
            self._line.tell(f"picture {progress.done + 1}/{progress.total}", now=True)

    def _step(self, done: int, total: int) -> str:
        if total != self._total or done < self._first:
            # The first step is no measure: it also prepares.
            self._total, self._first, self._began = total, done, time.monotonic()
        pace = (time.monotonic() - self._began) / (done - self._first) if done > self._first else 0.0
        return f"step {done}/{total}" + (f", {left((total - done) * pace)}" if pace else "")


def left(seconds: float) -> str:
    """How long it will take, in words: 12 s left, 3 min left, 1 h 20 min left."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s left"
    minutes = round(whole / 60)
    return f"{minutes} min left" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min left"
