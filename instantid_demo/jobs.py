"""Who runs and who waits: one job at a time, in the order of arrival, with places told and a polite way out."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from instantid_demo.request import RequestError


class Cancelled(Exception):  # noqa: N818 - not an error
    """The job's owner took it back; nothing went wrong."""


class QueueFullError(RequestError):
    """No room to wait; the user may try again."""


@dataclass(eq=False)
class Job:
    """One run of one request. Its owner may cancel it; nobody else holds it."""

    client: str = ""
    """Who asked, for a host's limits; empty: the only user."""
    previews: bool = True
    """Whether anybody watches the picture appear."""
    _cancelled: threading.Event = field(default_factory=threading.Event, repr=False)
    _wake: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def cancelled(self) -> bool:
        """Whether the owner took the job back."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Takes the job back: it ends within one denoising step, or at once where it still waits."""
        self._cancelled.set()
        if self._wake:
            self._wake()

    def check(self) -> None:
        """Ends the job here if it was taken back.

        Raises:
            Cancelled: it was.
        """
        if self.cancelled:
            raise Cancelled


class Line:
    """A bounded first-come-first-served line before one counter."""

    def __init__(self, places: int) -> None:
        """`places`: how many may wait behind the one whose turn it is."""
        self._places = places
        self._jobs: list[Job] = []
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Jobs in the line, the running one among them."""
        return len(self._jobs)

    @contextmanager
    def turn(self, job: Job, told: Callable[[int], None]) -> Iterator[None]:
        """Waits for the job's turn and holds it; `told` hears how many jobs are before it, at each change.

        Raises:
            QueueFullError: too many wait already.
            Cancelled: the job was taken back while it waited.
        """
        with self._changed:
            if len(self._jobs) > self._places:
                raise QueueFullError(f"{self._places} requests are waiting already: please try again in a minute.")
            self._jobs.append(job)
            job._wake = self._wake
        try:
            before = -1
            while True:
                with self._changed:
                    while not job.cancelled and self._jobs.index(job) == before:
                        self._changed.wait()
                    before = self._jobs.index(job)
                job.check()
                if before == 0:
                    break
                told(before)
            yield
        finally:
            with self._changed:
                self._jobs.remove(job)
                job._wake = None
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
