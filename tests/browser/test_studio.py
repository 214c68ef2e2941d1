"""Create beyond the first picture: views, several photos, start pictures, next steps, words and small screens."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.browser.conftest import PICTURE_MS, generate, paint, upload, with_face

pytestmark = pytest.mark.browser


def opened_accordion(page: Any, name: str) -> Any:
    page.locator(f"#{name} button").first.click()
    return page


def newest(outputs: Path, before: set[Path]) -> Path:
    (made,) = set(outputs.iterdir()) - before
    return made


def test_a_named_view_moves_the_sliders_and_the_drawn_face(opened: Any, portraits: list[Path], outputs: Path) -> None:
    page = opened_accordion(with_face(opened(), portraits[1]), "view")
    page.locator("#views [role=radio]").nth(11).wait_for()
    page.locator("#views [role=radio][data-id='slightly right']").click()
    page.wait_for_function("document.querySelector('#yaw input[type=number]').value === '20'")
    page.locator("#frame .face").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("parseFloat(document.querySelector('#place-x input[type=number]').value) > 0.5")
    before = set(outputs.iterdir())
    generate(page)
    settings = Image.open(newest(outputs, before)).info["parameters"]
    assert '"yaw":20.0' in settings


def test_a_turnaround_is_one_sheet_of_eight_views(opened: Any, portraits: list[Path], outputs: Path) -> None:
    page = opened_accordion(with_face(opened(), portraits[1]), "view")
    before = set(outputs.iterdir())
    generate(page, button="#turnaround")
    with Image.open(newest(outputs, before)) as sheet:
        assert sheet.width > 1.8 * sheet.height
    titles = page.locator("#create-about .likeness").evaluate_all("all => all.map(one => one.title).join()")
    assert len(re.findall(r"-?\d\.\d\d|–", titles)) == 8
    assert page.locator("#create-about").get_by_text("Person").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_the_answer_is_in_view_wherever_it_was_asked_for(opened: Any, portraits: list[Path], width: int) -> None:
    page = opened_accordion(with_face(opened(width=width), portraits[1]), "view")
    page.locator("#turnaround").scroll_into_view_if_needed()
    generate(page, button="#turnaround")
    sheet = page.locator("#create-gallery img").first
    page.wait_for_function("() => document.querySelector('#create-gallery img').naturalWidth > 0")
    assert 0 <= sheet.bounding_box()["y"] < page.viewport_size["height"]
    gallery = page.locator("#create-gallery").bounding_box()
    assert gallery["height"] < sheet.bounding_box()["height"] + 80


def test_a_photo_of_somebody_else_is_pointed_out(opened: Any, portraits: list[Path]) -> None:
    page = opened_accordion(with_face(opened(), portraits[1]), "more-photos")
    upload(page, "#more-files", portraits[1], portraits[80])
    page.locator("#more-note").get_by_text("looks like someone else").wait_for()


def test_a_start_picture_is_changed_and_not_replaced(opened: Any, portraits: list[Path], outputs: Path) -> None:
    page = with_face(opened(), portraits[1])
    before = set(outputs.iterdir())
    generate(page)
    first = newest(outputs, before)
    page.locator("#as-start").click()
    page.locator("#init img, #init canvas").first.wait_for()
    page.locator("#field-strength input[type=number]").fill("0.3")
    before = set(outputs.iterdir())
    generate(page)
    second = newest(outputs, before)
    assert first != second
    assert "strength" in Image.open(second).info["parameters"].lower()


def test_what_is_painted_over_changes_and_the_rest_stays(opened: Any, portraits: list[Path], outputs: Path) -> None:
    page = opened_accordion(with_face(opened(), portraits[1]), "start")
    canvas = page.locator("#init canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1500)  # the editor takes a moment to set its canvas up, and no picture before
    upload(page, "#init", portraits[4])
    page.wait_for_timeout(1500)  # the editor fits the picture into its frame
    paint(page, lines=12)
    before = set(outputs.iterdir())
    generate(page)
    made, photo = newest(outputs, before), Image.open(portraits[4]).convert("RGB")
    pixels = np.asarray(Image.open(made).convert("RGB"), np.float32)
    wanted = np.asarray(ImageOps.fit(photo, Image.open(made).size), np.float32)
    changed = np.abs(pixels - wanted).mean(2)
    side = len(changed)
    middle = changed[int(0.4 * side) : int(0.6 * side), int(0.4 * side) : int(0.6 * side)]
    edge = changed[:, : side // 8]
    assert middle.mean() > 2 * edge.mean()  # Pocket's picture is small: the edge is a little softer as well


def test_the_drawn_face_is_dragged_and_resized(opened: Any, portraits: list[Path]) -> None:
    page = opened_accordion(with_face(opened(), portraits[1]), "view")
    page.locator("#views [role=radio][data-id='slightly right']").click()
    page.locator("#frame .face").wait_for()
    frame = page.locator("#frame .surface").bounding_box()
    drag(page, "#frame .face", 0.2 * frame["width"], 0.1 * frame["height"])
    page.wait_for_function("Math.abs(document.querySelector('#place-x input[type=number]').value - 0.7) < 0.03")
    before = float(page.locator("#place-size input[type=number]").input_value())
    drag(page, "#frame .grip", -0.1 * frame["width"], -0.1 * frame["height"])
    page.wait_for_function(f"document.querySelector('#place-size input[type=number]').value < {before - 0.1}")


def drag(page: Any, what: str, x: float, y: float) -> None:
    """Drags the middle of an element by so many pixels."""
    page.locator(what).scroll_into_view_if_needed()
    box = page.locator(what).bounding_box()
    at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + x, at[1] + y, steps=5)
    page.mouse.up()


@pytest.mark.parametrize(("kind", "tab"), [("pose", "Body pose"), ("depth", "Depth"), ("canny", "Edges")])
def test_maps_of_another_picture_are_shown_and_used(
    opened: Any, portraits: list[Path], outputs: Path, kind: str, tab: str
) -> None:
    page = opened_accordion(with_face(opened(), portraits[1]), "controls")
    page.get_by_role("tab", name=tab).click()
    upload(page, f"#control-{kind}-image", portraits[4])
    page.locator(f"#control-{kind}-image img").first.wait_for()
    page.locator(f"#control-{kind}-preview").click()
    page.locator(f"#control-{kind}-map img").first.wait_for()
    before = set(outputs.iterdir())
    generate(page)
    assert f'"{kind}"' in Image.open(newest(outputs, before)).info["parameters"]


def test_four_variations_of_a_result(opened: Any, portraits: list[Path], outputs: Path) -> None:
    page = with_face(opened(), portraits[1])
    generate(page)
    before = set(outputs.iterdir())
    page.locator("#vary").click()
    page.locator("#create-gallery button img").nth(3).wait_for(timeout=PICTURE_MS)
    assert len(set(outputs.iterdir()) - before) == 4


def test_a_result_is_compared_and_exported(opened: Any, portraits: list[Path], tmp_path: Path) -> None:
    page = with_face(opened(), portraits[1])
    generate(page)
    page.locator("#compare").click()
    page.locator("#create-slider img").nth(1).wait_for()
    page.locator("#comfy").click()
    with page.expect_download() as started:
        page.locator("#comfy-file a").first.click()
    started.value.save_as(tmp_path / "workflow.json")
    kinds = {node["type"] for node in json.loads((tmp_path / "workflow.json").read_text())["nodes"]}
    assert "ApplyInstantIDAdvanced" in kinds


def test_an_example_fills_the_form(opened: Any) -> None:
    page = opened()
    page.locator("#example-rows tbody tr, #example-rows .tr-body").first.click()
    page.locator("#photo img").first.wait_for()
    page.wait_for_function("document.querySelector('#field-prompt textarea').value.length > 10")
    page.locator("#consent input").check()
    generate(page)


@pytest.mark.parametrize(
    ("language", "said"),
    [("de-DE", "Erzeugen"), ("es-ES", "Generar"), ("ja-JP", "生成"), ("zh-CN", "生成")],
)
def test_the_page_speaks_the_browsers_language(opened: Any, language: str, said: str) -> None:
    opened(lang=language).locator("#generate", has_text=said).wait_for()


def test_the_tour_has_three_steps_and_comes_once(opened: Any) -> None:
    page = opened(tour=True)
    for _ in range(3):
        page.locator("#tour .next").click()
    page.locator("#tour").wait_for(state="hidden")
    page.reload()
    page.locator("#styles [role=radio]").first.wait_for()
    page.wait_for_timeout(1000)
    assert not page.locator("#tour").is_visible()


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_everything_without_sideways_scrolling(opened: Any, portraits: list[Path], dark: bool) -> None:
    page = with_face(opened(width=390, dark=dark), portraits[1])
    generate(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    button, picture = (page.locator(where).bounding_box() for where in ("#generate", "#create-gallery"))
    assert button["y"] < picture["y"] < button["y"] + 300
