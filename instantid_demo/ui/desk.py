"""What every tab works with: the host's settings, the engine, and each visitor's running job."""

import hashlib
import logging
import shutil
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

import gradio as gr

from instantid_demo.jobs import Job
from instantid_demo.request import Consent, GenerationRequest, Progress, RequestError, Result
from instantid_demo.settings import Settings
from instantid_demo.ui.words import span

log = logging.getLogger(__name__)
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""For events of the page that no program calls and that show no progress of their own."""
INSTANT: dict[str, Any] = QUIET | {"queue": False}
"""The same for events that wait for nobody."""
STATEMENT = "I may use this face"
"""The label of the consent box, and what is recorded with the picture."""


class Engine(Protocol):
    """What the page asks of `instantid_demo.engine.Engine`."""

    @property
    def loaded_model(self) -> str | None: ...

    def run(self, request: GenerationRequest, *, job: Job | None = None) -> Iterator[Progress | Result]: ...

    def analyse(self, photo: Any, model: str = "auto") -> list[Any]: ...

    def report(self, photo: Any, model: str = "auto") -> dict[str, Any]: ...

    def identity(self, photo: Path, model: str = "auto") -> Any: ...

    def badge(self, model: str = "auto") -> Any: ...


@dataclass
class Desk:
    """One application's settings, engine and jobs."""

    settings: Settings
    engine: Engine
    _jobs: dict[str, Job] = field(default_factory=dict)
    _times: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _folders: dict[str, Path] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def job(self, visitor: gr.Request | None, *, alone: bool = True) -> Iterator[Job]:
        """The visitor's one running job; a second one takes the place of the first, which is taken back.

        `alone=False` lets several run beside each other, as callers of the API expect.

        Raises:
            RequestError: the client asked too often in the last minute.
        """
        job = Job(client=client_of(visitor))
        self._count(job.client)
        key = key_of(visitor) if alone else f"{key_of(visitor)} {id(job)}"
        with self._lock:
            before, self._jobs[key] = self._jobs.get(key), job
        if before:
            before.cancel()
        try:
            yield job
        finally:
            # Also reached when the visitor closes the page: Gradio closes the generator then.
            job.cancel()
            with self._lock:
                if self._jobs.get(key) is job:
                    del self._jobs[key]

    def _count(self, client: str) -> None:
        """Notes a request of a client, and refuses it where there were too many in a minute."""
        if not self.settings.rate:
            return
        now = time.monotonic()
        with self._lock:
            times = self._times[client]
            while times and now - times[0] > 60:
                times.popleft()
            if len(times) >= self.settings.rate:
                raise RequestError(f"At most {self.settings.rate} requests a minute are allowed: please wait a little.")
            times.append(now)
            for known in [name for name, asked in self._times.items() if not asked or now - asked[-1] > 60]:
                del self._times[known]

    def cancel(self, visitor: gr.Request) -> None:
        """Takes back the visitor's own job, if one runs."""
        with self._lock:
            job = self._jobs.get(key_of(visitor))
        if job:
            job.cancel()

    def folder(self, visitor: gr.Request | None) -> Path:
        """The visitor's own temporary folder, inside Gradio's, wiped when the visitor leaves."""
        key = key_of(visitor)
        with self._lock:
            if key not in self._folders or not self._folders[key].is_dir():
                from gradio.utils import get_upload_folder

                Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
                self._folders[key] = Path(tempfile.mkdtemp(prefix="session-", dir=get_upload_folder()))
            return self._folders[key]

    def outputs(self, visitor: gr.Request | None) -> Path | None:
        """Where the visitor's pictures stay; None: nowhere. A host of strangers needs accounts to tell them apart."""
        if not self.settings.keeps_history:
            return None
        if not self.settings.hosted:
            return self.settings.outputs
        account = getattr(visitor, "username", None)
        return self.settings.outputs / hashlib.sha256(account.encode()).hexdigest()[:16] if account else None

    def forget(self, visitor: gr.Request) -> None:
        """Wipes what a leaving visitor left behind."""
        self.cancel(visitor)
        with self._lock:
            folder = self._folders.pop(key_of(visitor), None)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    def consent(self, given: bool) -> Consent | None:
        """The record of the visitor's consent.

        Raises:
            gr.Error: the host asks for consent and the box is not ticked.
        """
        if not given and self.settings.consent:
            raise gr.Error(span("error.consent"), title=span("error.title"), print_exception=False)
        return Consent(statement=STATEMENT, time=datetime.now(UTC)) if given else None


def key_of(visitor: gr.Request | None) -> str:
    """What tells one browser tab from another."""
    return getattr(visitor, "session_hash", None) or "api"


def client_of(visitor: gr.Request | None) -> str:
    """Who asks, for limits: the account's name, else the network address."""
    if visitor is None:
        return ""
    host = visitor.client.host if getattr(visitor, "client", None) else ""
    return getattr(visitor, "username", None) or host


def spoken(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose `RequestError` becomes one sentence on the page instead of a broken one."""

    @wraps(function)
    def handler(*values: Any, **named: Any) -> Any:
        try:
            return function(*values, **named)
        except RequestError as error:
            raise as_error(error) from error

    return handler


def as_error(error: Exception) -> gr.Error:
    """The sentence for the page; anything unforeseen is logged and named as ours."""
    import html

    if isinstance(error, RequestError):
        return gr.Error(html.escape(str(error)), title=span("error.title"), print_exception=False)
    log.exception("a request failed", exc_info=error)
    return gr.Error(span("error.ours"), title=span("error.title"), print_exception=False)
