"""A running application with Pocket, and pages of a system Chromium to drive it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
START_SECONDS = 180
PICTURE_MS = 180_000
"""How long a picture may take on a busy machine before a test gives up; nothing waits that long on purpose."""

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make setup")


def free_port() -> int:
    import socket

    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the running application saves pictures."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="session")
def address(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `python app.py` on a free port."""
    if not (ROOT / "assets" / "pocket" / "unet").is_dir():
        pytest.skip("Pocket's weights are not in assets/pocket")
    home = tmp_path_factory.mktemp("home")
    with serving(home, INSTANTID_OUTPUTS=str(outputs)) as found:
        yield found


@contextmanager
def serving(home: Path, **environment: str) -> Iterator[str]:
    """`python app.py` on a free port with Pocket, its data in `home`; gives its address, and ends it afterwards."""
    port = free_port()
    given = {
        "PORT": str(port),
        "INSTANTID_HOME": str(home),
        "INSTANTID_OUTPUTS": str(home / "outputs"),
        "INSTANTID_MODEL": "pocket",
        **environment,
    }
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=os.environ | given, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for(f"http://127.0.0.1:{port}", server, Path(log.name))
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits until the application answers, and fails with its log where it ends before."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            pytest.fail(f"app.py ended with {server.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"{address}/config", timeout=5) as answer:
                json.load(answer)
                return
        except urllib.error.HTTPError:
            return  # it asks for an account
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"app.py did not answer:\n{log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests."""
    if not CHROMIUM.exists():
        if os.environ.get("CI"):
            pytest.fail(f"there is no browser at {CHROMIUM}, and in CI these tests are mandatory")
        pytest.skip(f"there is no browser at {CHROMIUM} (set CHROMIUM)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page: `opened(width=390, dark=True, lang="de-DE", tour=True)`.

    At the end of the test nothing may have been asked of another host, and no script may have failed.
    """
    contexts, foreign, failures = [], [], []

    def open_page(*, width: int = 1280, dark: bool = False, lang: str = "en-US", tour: bool = False) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            locale=lang,
            accept_downloads=True,
        )
        contexts.append(context)
        if not tour:
            context.add_init_script("localStorage.setItem('studio-tour', 'seen')")
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("request", lambda asked: foreign.append(asked.url) if is_foreign(asked.url, address) else None)
        page.goto(address)
        page.locator("#styles [role=radio]").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert foreign == []
    assert failures == []


def is_foreign(url: str, address: str) -> bool:
    """Whether a request leaves the application."""
    return not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))


def upload(page: Any, where: str, *files: Path) -> None:
    """Chooses files in the upload field inside the element `where`."""
    page.locator(f"{where} input[type=file]").first.set_input_files([str(file) for file in files])


def with_face(page: Any, photo: Path) -> Any:
    """The Create tab with a photo and consent."""
    upload(page, "#photo", photo)
    page.locator("#photo img").first.wait_for()
    page.locator("#consent input").check()
    return page


def generate(page: Any, name: str = "create", button: str = "#generate") -> Any:
    """Presses the button and waits until the tab's gallery has new pictures; returns them."""
    pictures = page.locator(f"#{name}-gallery img")
    before = pictures.first.get_attribute("src") if pictures.count() else ""
    page.locator(button).click()
    page.wait_for_function(
        "([where, before]) => { const made = document.querySelector(where);"
        " return made && made.getAttribute('src') && made.getAttribute('src') !== before; }",
        arg=[f"#{name}-gallery img", before],
        timeout=PICTURE_MS,
    )
    return pictures


def paint(page: Any, lines: int = 10) -> None:
    """Strokes over the middle of the start picture, line by line."""
    box = page.locator("#init canvas").first.bounding_box()
    for part in range(lines):
        y = box["y"] + box["height"] * (0.35 + 0.025 * part)
        page.mouse.move(box["x"] + box["width"] * 0.4, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=6)
        page.mouse.up()
    page.wait_for_timeout(1500)  # the editor sends the mask a moment after the last line
