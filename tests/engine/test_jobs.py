"""The line before the engine: order, places, limits, cancelling."""

import threading

import pytest

from instantid_demo.jobs import Cancelled, Job, Line, QueueFullError

PATIENCE = 20
"""Seconds after which a hanging test fails."""


class Visitor:
    """A job in a thread of its own that stays at the counter until told to go."""

    def __init__(self, line: Line) -> None:
        self.job, self.places = Job(), []
        self.there, self.go, self.heard = threading.Event(), threading.Event(), threading.Semaphore(0)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._visit, args=(line,), daemon=True)
        self.thread.start()

    def _visit(self, line: Line) -> None:
        try:
            with line.turn(self.job, self._told):
                self.there.set()
                assert self.go.wait(PATIENCE)
        except Exception as error:
            self.error = error

    def _told(self, before: int) -> None:
        self.places.append(before)
        self.heard.release()

    def leave(self) -> None:
        self.go.set()
        self.thread.join(PATIENCE)


def test_one_at_a_time_in_order_with_places() -> None:
    line = Line(5)
    first = Visitor(line)
    assert first.there.wait(PATIENCE)
    second = Visitor(line)
    assert second.heard.acquire(timeout=PATIENCE)
    third = Visitor(line)
    assert third.heard.acquire(timeout=PATIENCE)
    assert not second.there.is_set()
    assert not third.there.is_set()
    first.leave()
    assert second.there.wait(PATIENCE)
    assert third.heard.acquire(timeout=PATIENCE)
    second.leave()
    assert third.there.wait(PATIENCE)
    third.leave()
    assert (first.places, second.places, third.places) == ([], [1], [2, 1])
    assert len(line) == 0


def test_a_full_line_refuses() -> None:
    line = Line(1)
    running = Visitor(line)
    assert running.there.wait(PATIENCE)
    waiting = Visitor(line)
    assert waiting.heard.acquire(timeout=PATIENCE)
    with pytest.raises(QueueFullError, match="1 requests are waiting"), line.turn(Job(), lambda _: None):
        pass
    assert len(line) == 2
    running.leave()
    assert waiting.there.wait(PATIENCE)
    waiting.leave()


def test_cancelling_while_waiting_frees_the_place_and_nobody_else() -> None:
    line = Line(5)
    running = Visitor(line)
    assert running.there.wait(PATIENCE)
    waiting = Visitor(line)
    assert waiting.heard.acquire(timeout=PATIENCE)
    waiting.job.cancel()
    waiting.thread.join(PATIENCE)
    assert isinstance(waiting.error, Cancelled)
    assert len(line) == 1
    assert not running.job.cancelled
    running.leave()
    assert running.error is None


def test_an_error_at_the_counter_frees_it() -> None:
    line = Line(1)
    with pytest.raises(ZeroDivisionError), line.turn(Job(), lambda _: None):
        raise ZeroDivisionError
    with line.turn(Job(), lambda _: None):
        assert len(line) == 1
