"""The Models and About tabs."""

from typing import Any

import pytest

from instantid_demo.models import catalogue
from tests.browser.test_tabs import tab

pytestmark = pytest.mark.browser


def test_size_and_licence_come_before_a_download(opened: Any) -> None:
    page = tab(opened(), "Models")
    page.locator("#models-list .record").nth(len(catalogue.ENTRIES)).wait_for()
    page.locator("#models-pick input").fill("RealVisXL V5")
    page.get_by_role("option", name="RealVisXL V5").click()
    facts = page.locator("#models-facts")
    facts.get_by_text("7.0 GB").wait_for()
    facts.get_by_text(catalogue.entry("realvis").licence).wait_for()
    assert page.locator("#models-download").is_disabled()
    page.locator("#models-agree input").check()
    page.locator("#models-download:not([disabled])").wait_for()


def test_a_model_that_is_not_here_is_not_chosen(opened: Any) -> None:
    page = tab(opened(), "Models")
    chooser = page.locator("#models-choose input")
    chooser.fill("somebody/some-model")
    chooser.press("Enter")
    page.locator("#models-note", has_text="somebody/some-model is not here").wait_for()
    page.locator("#badge", has_text="Pocket").wait_for()


def test_about_names_limits_and_licences(opened: Any) -> None:
    page = tab(opened(), "About")
    for title in ("Limits", "Fair use", "Privacy", "Licences"):
        page.locator("#about h2", has_text=title).wait_for()
