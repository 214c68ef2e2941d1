"""Blend, Group, History and Verify."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from instantid_demo.faces.identity import Identity
from tests.browser.conftest import PICTURE_MS, generate, upload, with_face

pytestmark = pytest.mark.browser
on_phones_too = pytest.mark.parametrize("width", [1280, 390])


def tab(page: Any, name: str) -> Any:
    """Opens a tab by its English name; on a phone the last ones are in the menu behind the dots."""
    shown = page.get_by_role("tab", name=name, exact=True)
    if shown.count() and shown.first.is_visible():
        shown.first.click()
    else:
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown button", has_text=name).click()
    return page


def test_two_people_blend_and_make_a_strip(opened: Any, portraits: list[Path]) -> None:
    page = tab(opened(), "Blend")
    upload(page, "#blend-first", portraits[0])
    upload(page, "#blend-second", portraits[60])
    page.locator("#blend-second img").first.wait_for()
    page.locator("#consent-blend input").check()
    generate(page, "blend", "#blend-go")
    page.locator("#blend-about .ends").get_by_text("To person 2").wait_for()
    page.locator("#blend-strip").click()
    page.locator("#blend-gallery button img").nth(4).wait_for(timeout=PICTURE_MS)


def test_a_group_has_a_box_for_each(opened: Any, portraits: list[Path], tmp_path: Path) -> None:
    page = tab(opened(), "Group")
    page.locator("#group-count").get_by_label("3").check()
    page.locator("#group-canvas .region-3").wait_for()
    page.locator("#group-count").get_by_label("2").check()
    page.locator("#group-canvas .region-3").wait_for(state="detached")
    box = page.locator("#group-canvas .region-1")
    before = box.bounding_box()
    box.focus()
    page.keyboard.press("Shift+ArrowLeft")
    after = box.bounding_box()
    assert after["width"] < before["width"]
    upload(page, "#group-photo-1", portraits[0])
    page.locator("#group-photo-1 img").first.wait_for()
    page.locator("#consent-group input").check()
    page.locator("#group-go").click()
    page.get_by_text("Please add a photo or an identity card of every person.").wait_for()
    card = tmp_path / "second.safetensors"
    Identity(np.random.default_rng(1).normal(0, 0.09, 128).astype(np.float32), "dlib").save(card)
    page.locator("#group-photo-2-card-box button").first.click()
    upload(page, "#group-photo-2-card", card)
    page.locator("#group-photo-2-card").get_by_text("second").wait_for()
    generate(page, "group", "#group-go")
    assert page.locator("#group-about .likeness").count() == 2


@on_phones_too
def test_history_searches_restores_and_deletes(opened: Any, portraits: list[Path], outputs: Path, width: int) -> None:
    page = with_face(opened(width=width), portraits[1])
    page.locator("#field-prompt textarea").fill("a juggler in a violet hat")
    generate(page)
    tab(page, "History")
    page.locator("#history-search textarea, #history-search input").fill("juggler violet")
    found = page.locator("#history-pictures [role=radio]", has_text="juggler")
    found.first.click()
    page.locator("#history-about", has_text="a juggler in a violet hat").wait_for()
    page.locator("#history-use").click()
    page.locator("#field-prompt textarea").wait_for()
    assert page.locator("#field-prompt textarea").input_value() == "a juggler in a violet hat"
    tab(page, "History")
    before = len(list(outputs.iterdir()))
    found.first.click()
    page.locator("#history-delete").click()
    found.wait_for(state="detached")
    assert len(list(outputs.iterdir())) == before - 1


@on_phones_too
def test_verify_knows_made_and_tampered_pictures(
    opened: Any, portraits: list[Path], outputs: Path, tmp_path: Path, width: int
) -> None:
    page = with_face(opened(width=width), portraits[1])
    before = set(outputs.iterdir())
    generate(page)
    (made,) = set(outputs.iterdir()) - before
    tab(page, "Verify")
    upload(page, "#verify-file", made)
    page.locator("#verify-result [data-manifest=untrusted]").wait_for()
    page.locator("#verify-result [data-watermark=True]").wait_for()
    page.locator("#verify-restore").click()
    page.locator("#field-prompt textarea").wait_for()

    tab(page, "Verify")
    (tmp_path / "tampered.png").write_bytes(made.read_bytes() + b"more")
    page.locator("#verify-file button[aria-label]").first.click()
    upload(page, "#verify-file", tmp_path / "tampered.png")
    page.locator("#verify-result [data-manifest=tampered]").wait_for()

    page.locator("#verify-file button[aria-label]").first.click()
    upload(page, "#verify-file", portraits[0])
    page.locator("#verify-result [data-manifest=absent]").wait_for()
    page.locator("#verify-result [data-watermark=False]").wait_for()


@on_phones_too
def test_a_made_picture_restores_the_form(opened: Any, portraits: list[Path], outputs: Path, width: int) -> None:
    page = with_face(opened(width=width), portraits[1])
    before = set(outputs.iterdir())
    page.locator("#field-prompt textarea").fill("a portrait on a boat")
    page.locator("#styles [role=radio][data-id=watercolor]").click()
    page.locator("#field-images input[type=number]").fill("2")
    generate(page)
    made = sorted(set(outputs.iterdir()) - before)
    assert len(made) == 2
    assert min(Image.open(made[0]).size) >= 256
    page.reload()
    page.locator("#restore button").first.click()
    upload(page, "#restore-file", made[0])
    page.wait_for_function("document.querySelector('#field-prompt textarea').value === 'a portrait on a boat'")
    assert page.locator("#styles [role=radio][data-id=watercolor]").get_attribute("aria-checked") == "true"
