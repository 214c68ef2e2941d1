"""A repository of the Hugging Face hub: what it holds, and its files, fetched so that a broken line loses nothing.

    found = hub.listing("InstantX/InstantID")
    hub.fetch(found, found.files[0], folder, told=print)

huggingface_hub gives address (HF_ENDPOINT), token (HF_TOKEN), client and errors. Its own download begins every file
anew in the next process and takes a mirror's bytes on trust: here a part goes on by Range, under a name that holds
the digest of the whole, and nothing gets its final name before size and digest are right.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from huggingface_hub import constants, errors
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from instantid_demo.request import RequestError

Told = Callable[[int], None]
"""Hears the number of bytes that have come since the last call; negative where a part was given up."""
T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try, as long as none brings a byte."""
MOST_WAIT = 120
"""Seconds that a hub may ask us to wait; where it wants more, the user is told to come back."""
PASSING = (408, 429, 500, 502, 503, 504)
"""Answers that may be another one soon."""
CHUNK = 2**20


@dataclass(frozen=True)
class File:
    """One file of a repository."""

    path: str
    """Within the repository, with slashes."""
    size: int
    """In bytes."""
    digest: str
    """sha256 in hex of a large file (LFS), or git's own name for a small one, which is a sha1."""


@dataclass(frozen=True)
class Listing:
    """What a repository held when it was asked."""

    repository: str
    commit: str
    files: tuple[File, ...]
    licence: str = ""
    """As its card says; empty: it says nothing."""


class _UnlikeError(Exception):
    """The answer is nothing that a hub says."""


class _DamagedError(Exception):
    """All bytes are here, and they are the wrong ones."""


def listing(repository: str, revision: str = "main") -> Listing:
    """The repository's files at a branch, tag or commit.

    Raises:
        RequestError: the hub cannot be reached, does not know it or does not show it; the sentence says which.
    """
    api = f"{constants.ENDPOINT}/api/models/{repository}"

    def ask() -> Listing:
        facts = _json(f"{api}/revision/{revision}")
        commit, entries = str(facts["sha"]), list[dict[str, Any]]()
        url: str | None = f"{api}/tree/{commit}?recursive=true"
        while url:
            response = _asked(url)
            entries += _parsed(response)
            url = response.links.get("next", {}).get("url")
        files = tuple(_file(entry) for entry in entries if entry["type"] == "file")
        return Listing(repository, commit, files, str((facts.get("cardData") or {}).get("license") or ""))

    with _in_a_sentence(repository):
        validate_repo_id(repository)
        try:
            return _patiently(ask, (errors.HfHubHTTPError, httpx2.TimeoutException))
        except (KeyError, TypeError, AttributeError) as error:
            raise _UnlikeError from error


def fetch(found: Listing, file: File, folder: Path, told: Told = lambda count: None) -> None:
    """Brings one file into `folder`, from where an earlier try stopped.

    Raises:
        RequestError: it did not come, or came damaged; what is here of it is kept unless it is damaged.
        OSError: the disk is full or not writable.
    """
    target, part = folder / file.path, part_of(file, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _in_a_sentence(found.repository):
        for resumed in (part.is_file(), False):
            _stream(found, file, part, told)
            if digest(part, file) == file.digest:
                os.replace(part, target)
                return
            told(-file.size)
            part.unlink()
            # A part of long ago may be at fault; what has just come whole is not worth a second try.
            if not resumed:
                raise _DamagedError


def beginning(found: Listing, file: File, count: int) -> bytes:
    """The first `count` bytes of a file. Raises as `fetch`."""

    def ask() -> bytes:
        headers = {"Range": f"bytes=0-{count - 1}"}
        with _streamed(_url(found, file), headers) as response:
            got = b""
            for chunk in response.iter_bytes():
                got += chunk
                if len(got) >= count:
                    break
        if len(got) < min(count, file.size):
            raise _UnlikeError
        return got[:count]

    with _in_a_sentence(found.repository):
        return _patiently(ask, (errors.HfHubHTTPError, httpx2.TransportError))


def part_of(file: File, folder: Path) -> Path:
    """Where the unfinished file lies; another version of it has another name."""
    target = folder / file.path
    return target.with_name(f"{target.name}.{file.digest[:12]}.part")


def digest(path: Path, like: File) -> str:
    """The digest of a file on disk, of the kind that `like` has."""
    hashed = hashlib.sha256() if len(like.digest) == 64 else hashlib.sha1(usedforsecurity=False)
    if hashed.name == "sha1":
        hashed.update(f"blob {path.stat().st_size}\0".encode())  # as git names its objects
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def _stream(found: Listing, file: File, part: Path, told: Told) -> None:
    """Brings `part` to its full size, in as many goes as the line needs."""
    part.touch()
    have = part.stat().st_size
    if have > file.size:
        part.unlink()
        told(-have)
        have = 0

    def go_on() -> int:
        """The new size of `part`."""
        size = have
        try:
            with _streamed(_url(found, file), {"Range": f"bytes={have}-"} if have else {}) as response:
                if have and response.status_code != 206:
                    size = 0
                _require_whole(response, file, size)
                told(size - have)
                with part.open("ab" if size else "wb") as out:
                    for chunk in response.iter_bytes():  # as they arrive: a fuller chunk would be lost with the line
                        out.write(chunk)
                        size += len(chunk)
                        told(len(chunk))
            if size < file.size:
                raise httpx2.ReadError("the answer ended early")
        except httpx2.TransportError:
            if size <= have:
                raise
        return size

    while have < file.size:
        have = _patiently(go_on, (errors.HfHubHTTPError, httpx2.TransportError))


def _require_whole(response: httpx2.Response, file: File, have: int) -> None:
    """Refuses an answer that is not the rest of this file, before a byte of it is written."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "")) if have else None
    if have and (span is None or int(span[1]) != have or span[2] not in ("*", str(file.size))):
        raise _UnlikeError
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != file.size - have:
        raise _UnlikeError
    if not length.isdigit() and "html" in response.headers.get("Content-Type", "") and not file.path.endswith("html"):
        raise _UnlikeError


@contextmanager
def _streamed(url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
    # Packed for the way, an answer has another length than the file.
    asked = build_hf_headers() | {"Accept-Encoding": "identity"} | headers
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=asked, timeout=timeout) as response:
        hf_raise_for_status(response)
        yield response


def _asked(url: str) -> httpx2.Response:
    response = get_session().get(url, headers=build_hf_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT)
    hf_raise_for_status(response)
    return response


def _json(url: str) -> dict[str, Any]:
    return _parsed(_asked(url))


def _parsed(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise _UnlikeError from error


def _file(entry: dict[str, Any]) -> File:
    known = RepoFile(**entry)
    path = PurePosixPath(known.path)
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", known.path):
        raise _UnlikeError  # it would be written outside the model's folder
    if known.lfs:
        return File(known.path, known.lfs.size, known.lfs.sha256)
    return File(known.path, known.size, known.blob_id)


def _url(found: Listing, file: File) -> str:
    return f"{constants.ENDPOINT}/{found.repository}/resolve/{found.commit}/{quote(file.path)}"


def _patiently(ask: Callable[[], T], passing: tuple[type[Exception], ...]) -> T:
    """The answer of `ask`, asked again after a while where the error is one that passes."""
    for pause in WAITS:
        try:
            return ask()
        except passing as error:
            response = getattr(error, "response", None)
            if response is not None and response.status_code not in PASSING:
                raise
            asked_for = _wait(response) if response is not None else 0
            if asked_for > MOST_WAIT:
                raise
            time.sleep(max(pause, asked_for))
    return ask()


def _wait(response: httpx2.Response) -> float:
    """Seconds that the hub asks us to wait; 0: it does not say."""
    after = response.headers.get("Retry-After", "").strip()
    reset = re.search(r"\bt=(\d+)", response.headers.get("RateLimit", "")) if response.status_code == 429 else None
    return float(after) if after.isdigit() else float(reset[1]) if reset else 0.0


@contextmanager
def _in_a_sentence(repository: str) -> Iterator[None]:
    """Turns what the client and the hub say into one sentence for the user."""
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise RequestError("HF_HUB_OFFLINE is set, so nothing can be downloaded: unset it first.") from error
    except errors.HFValidationError as error:
        raise RequestError(f"{repository[:80]!r} is no hub id: it looks like owner/name.") from error
    except errors.HfHubHTTPError as error:
        raise RequestError(_refused(repository, error)) from error
    except _UnlikeError as error:
        raise RequestError(
            f"{constants.ENDPOINT} answers with something else than the model: where this network has a sign-in page, "
            "open it in a browser, then try again; otherwise check HF_ENDPOINT."
        ) from error
    except _DamagedError as error:
        raise RequestError(
            f"A file of {repository} arrived damaged (its checksum is not the hub's) and was removed: try again, or "
            "unset HF_ENDPOINT if it names a mirror."
        ) from error
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
        raise RequestError(f"HF_ENDPOINT is no web address: {constants.ENDPOINT[:80]!r}.") from error
    except (httpx2.LocalProtocolError, UnicodeEncodeError) as error:
        raise RequestError("HF_TOKEN holds characters that no token has: copy it again, or unset it.") from error
    except httpx2.TimeoutException as error:
        raise RequestError(
            f"{constants.ENDPOINT} does not answer: try again later; what is here is kept and the rest follows."
        ) from error
    except httpx2.ConnectError as error:
        if "CERTIFICATE" in str(error).upper():
            raise RequestError(
                f"{constants.ENDPOINT} shows a certificate that is not trusted here: check the clock, and where a "
                "proxy reads along, set SSL_CERT_FILE to its certificate."
            ) from error
        raise RequestError(
            f"{constants.ENDPOINT} cannot be reached: check the network and try again; what is here is kept."
        ) from error
    except (httpx2.TransportError, httpx2.TooManyRedirects) as error:
        raise RequestError(
            f"The connection to {constants.ENDPOINT} broke: check the network and try again; what is here is kept and "
            "the rest follows."
        ) from error


def _refused(repository: str, error: errors.HfHubHTTPError) -> str:
    """What an error status means for the user."""
    status = error.response.status_code
    token = "authorization" in error.response.request.headers
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repository} asks for your agreement: accept its terms on {constants.ENDPOINT}/{repository}, "
            "then set HF_TOKEN to a token of yours."
        )
    if status == 401 and token:
        return (
            f"The hub does not accept your token: make a new one on {constants.ENDPOINT}/settings/tokens, set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} no longer holds the version that this program knows: choose another model."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{repository} lists a file that it does not hand out: try again later, or choose another model."
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return (
            f"{repository} is not on the hub, or is private: check its name; for a private one set HF_TOKEN to a token "
            "that may read it."
        )
    if status == 403:
        return (
            f"The hub does not hand out {repository} (403): check that your token may read it, and that no proxy "
            "forbids the address."
        )
    if status == 429:
        wait = _wait(error.response)
        when = f"in {max(1, round(wait / 60))} minutes" if wait >= 60 else "in a few minutes"
        return f"The hub has had too many requests from here (429): try again {when}; what is here is kept."
    if status >= 500:
        return f"The hub is in trouble ({status}): try again later; what is here is kept and the rest follows."
    return f"The hub refuses {repository} ({status}): try again later, or choose another model."
