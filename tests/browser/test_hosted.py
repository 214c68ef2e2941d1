"""Hosted for others: accounts, limits, no history, many uploads at once, and nothing left behind."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import serving

gradio_client = pytest.importorskip("gradio_client")
pytestmark = pytest.mark.browser
ACCOUNT = ("anna", "a-long-password")
UPLOADS = 50
OLD = "instantid-999999999"
"""What a process left behind whose number no system gives out."""


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gradio's folder for uploads, with what an earlier run left in it."""
    folder = tmp_path_factory.mktemp("uploads")
    (folder / OLD).mkdir()
    (folder / OLD / "face.jpg").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def hosted(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A host's application with one account and three requests a minute."""
    environment = {
        "INSTANTID_HOSTED": "1",
        "INSTANTID_AUTH": ":".join(ACCOUNT),
        "INSTANTID_RATE_PER_MINUTE": "3",
        "INSTANTID_MAX_IMAGES": "2",
        "INSTANTID_UPLOAD_MB": "1",
        "GRADIO_TEMP_DIR": str(temporary),
    }
    with serving(tmp_path_factory.mktemp("host"), **environment) as address:
        yield address


@pytest.fixture(scope="module")
def client(hosted: str) -> Any:
    return gradio_client.Client(hosted, auth=ACCOUNT, verbose=False)


def test_without_an_account_nothing_is_answered(hosted: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{hosted}/config")
    with pytest.raises(ValueError, match="Could not login"):
        gradio_client.Client(hosted, auth=("anna", "guess"), verbose=False)


def test_uploads_of_an_earlier_run_are_wiped_at_the_start(hosted: str, temporary: Path) -> None:
    assert not (temporary / OLD).exists()
    (own,) = temporary.glob("instantid-*")
    assert own.stat().st_mode & 0o077 == 0


def test_many_uploads_at_once_are_all_answered(client: Any, portraits: list[Path]) -> None:
    found: list[int] = []
    failures: list[BaseException] = []

    def look(photo: Path) -> None:
        try:
            answer = client.predict(picture=gradio_client.handle_file(photo), api_name="/faces")
            found.append(len(answer["faces"]))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=look, args=(photo,)) for photo in portraits[:UPLOADS]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(found) == UPLOADS
    assert sum(count == 1 for count in found) > 0.9 * UPLOADS


def test_a_file_above_the_limit_is_refused_and_the_next_works(
    client: Any, portraits: list[Path], tmp_path: Path
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(portraits[0].read_bytes() + bytes(2_000_000))
    with pytest.raises(Exception, match=r"(?i)size|large|413"):
        client.predict(picture=gradio_client.handle_file(large), api_name="/faces")
    answer = client.predict(picture=gradio_client.handle_file(portraits[0]), api_name="/faces")
    assert len(answer["faces"]) == 1


def test_the_hosts_limits_hold_and_requests_are_rationed(client: Any, portraits: list[Path]) -> None:
    photo = gradio_client.handle_file(portraits[0])
    with pytest.raises(gradio_client.exceptions.AppError, match="At most 2 pictures"):
        client.predict(photo=photo, images=3, api_name="/generate")
    with pytest.raises(gradio_client.exceptions.AppError, match=r"is not here|does not offer"):
        client.predict(photo=photo, settings={"model": "/etc"}, api_name="/generate")
    client.predict(photo=photo, quality="draft", api_name="/generate")
    with pytest.raises(gradio_client.exceptions.AppError, match="3 requests a minute"):
        client.predict(photo=photo, quality="draft", api_name="/generate")
