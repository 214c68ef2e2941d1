"""The documentation's pictures: `make pictures` photographs the running application into docs/pictures."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import PICTURE_MS, generate, upload, with_face
from tests.browser.test_tabs import tab
from tests.conftest import ROOT

pytestmark = pytest.mark.browser
FOLDER = ROOT / "docs" / "pictures"
EXAMPLES = ROOT / "assets" / "examples"
WOMAN, MAN, ELDER = (EXAMPLES / f"{name}.jpg" for name in ("woman", "man", "elder"))


def photograph(page: Any, name: str, height: int = 900) -> None:
    """Saves the page's upper part as `docs/pictures/NAME.webp`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    page.mouse.move(0, 0)
    page.wait_for_timeout(600)  # transitions end
    size = page.viewport_size
    page.set_viewport_size({"width": size["width"], "height": height})
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").save(FOLDER / f"{name}.webp", quality=84, method=6)


def four_in_a_row(page: Any, style: str = "none") -> None:
    page.locator(f"#styles [role=radio][data-id='{style}']").click()
    page.locator("#field-images input[type=number]").fill("4")
    generate(page)


def test_create(opened: Callable[..., Any]) -> None:
    page = with_face(opened(), WOMAN)
    four_in_a_row(page)
    photograph(page, "create", 960)


def test_create_on_a_phone_in_the_dark(opened: Callable[..., Any]) -> None:
    page = with_face(opened(width=390, dark=True), MAN)
    generate(page)
    page.locator("#create-gallery").scroll_into_view_if_needed()
    photograph(page, "phone", 1500)


def test_turnaround(opened: Callable[..., Any]) -> None:
    page = with_face(opened(), WOMAN)
    page.locator("#view button").first.click()
    generate(page, button="#turnaround")
    photograph(page, "views", 1500)


def test_controls(opened: Callable[..., Any]) -> None:
    page = with_face(opened(), WOMAN)
    page.locator("#controls button").first.click()
    page.get_by_role("tab", name="Edges").click()
    upload(page, "#control-canny-image", MAN)
    page.locator("#control-canny-image img").first.wait_for()
    page.locator("#control-canny-preview").click()
    page.locator("#control-canny-map img").first.wait_for()
    generate(page)
    photograph(page, "controls", 2300)


def test_blend(opened: Callable[..., Any]) -> None:
    page = tab(opened(), "Blend")
    upload(page, "#blend-first", WOMAN)
    upload(page, "#blend-second", MAN)
    page.locator("#blend-second img").first.wait_for()
    page.locator("#consent-blend input").check()
    page.locator("#blend-strip").click()
    page.locator("#blend-gallery button img").nth(4).wait_for(timeout=PICTURE_MS)
    photograph(page, "blend", 1100)


def test_group(opened: Callable[..., Any]) -> None:
    page = tab(opened(), "Group")
    for number, photo in enumerate((WOMAN, MAN), 1):
        upload(page, f"#group-photo-{number}", photo)
        page.locator(f"#group-photo-{number} img").first.wait_for()
    page.locator("#consent-group input").check()
    generate(page, "group", "#group-go")
    photograph(page, "group", 1200)


def test_history(opened: Callable[..., Any]) -> None:
    page = with_face(opened(), ELDER)
    four_in_a_row(page, "watercolor")
    four_in_a_row(page, "pop art")
    tab(page, "History")
    page.locator("#history-pictures [role=radio]").first.click()
    page.locator("#history-about td").first.wait_for()
    photograph(page, "history")


def test_verify(opened: Callable[..., Any], outputs: Path) -> None:
    page = tab(opened(), "Verify")
    upload(page, "#verify-file", max(outputs.glob("*.png"), key=lambda file: file.stat().st_mtime))
    page.locator("#verify-result [data-watermark=True]").wait_for()
    photograph(page, "verify", 820)


def test_models(opened: Callable[..., Any]) -> None:
    page = tab(opened(), "Models")
    page.locator("#models-list .record").nth(8).wait_for()
    photograph(page, "models")
