"""The Create tab from upload to the saved file."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from instantid_demo.provenance import metadata
from tests.browser.conftest import PICTURE_MS, generate, upload, with_face

pytestmark = pytest.mark.browser


@pytest.fixture
def face(portraits: list[Path]) -> Path:
    return portraits[1]


def test_a_photo_becomes_a_picture_to_download(opened: Any, face: Path, outputs: Path, tmp_path: Path) -> None:
    page = with_face(opened(), face)
    page.locator("#field-prompt textarea").fill("a portrait in a garden")
    page.locator("#styles [role=radio][data-id='film noir']").click()
    before = set(outputs.iterdir())
    assert generate(page).count() >= 1
    assert (
        "Likeness" in page.locator("#create-about").inner_text() or "face" in page.locator("#create-about").inner_text()
    )
    with page.expect_download() as download:
        page.locator("#create-download").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    (saved,) = set(outputs.iterdir()) - before
    assert file.read_bytes() == saved.read_bytes(), "the browser must get the signed bytes themselves"
    assert min(Image.open(file).size) >= 256


def test_the_same_seed_gives_the_same_picture(opened: Any, face: Path, outputs: Path) -> None:
    page = with_face(opened(), face)
    before = set(outputs.iterdir())
    generate(page)
    page.locator("#use-seed").click()
    page.wait_for_function("document.querySelector('#field-seed input')?.value")
    generate(page)
    first, second = (Image.open(file) for file in sorted(set(outputs.iterdir()) - before))
    assert first.tobytes() == second.tobytes()


def test_without_consent_nothing_is_made(opened: Any, face: Path) -> None:
    page = opened()
    upload(page, "#photo", face)
    page.locator("#photo img").first.wait_for()
    page.locator("#generate").click()
    page.get_by_text("Please tick “I may use this face” first.").wait_for()
    assert page.locator("#create-gallery img").count() == 0
    page.locator("#consent input").check()
    page.reload()
    page.locator("#styles [role=radio]").first.wait_for()
    page.locator("#consent input:checked").wait_for()


def test_of_two_faces_one_is_chosen(opened: Any, portraits: list[Path], tmp_path: Path) -> None:
    pair = Image.new("RGB", (800, 400))
    for index in (0, 1):
        pair.paste(Image.open(portraits[index]).resize((400, 400)), (400 * index, 0))
    pair.save(tmp_path / "pair.jpg")
    page = with_face(opened(), tmp_path / "pair.jpg")
    faces = page.locator("#faces [role=radio]")
    faces.nth(1).click()
    assert faces.nth(1).get_attribute("aria-checked") == "true"
    assert faces.count() == 2
    generate(page)


def test_an_iphones_photo_is_shown_and_used(opened: Any) -> None:
    page = with_face(opened(), Path(__file__).parents[1] / "faces" / "data" / "woman.heic")
    page.wait_for_function("document.querySelector('#photo img')?.naturalWidth > 0")
    assert generate(page).count() >= 1


def test_what_is_wrong_with_a_photo_is_said_at_once(opened: Any, face: Path, tmp_path: Path) -> None:
    Image.open(face).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png")
    page = with_face(opened(), tmp_path / "lying.png")
    page.locator("#faces-note").get_by_text("The photo was turned upright.").wait_for()


def test_a_photo_without_a_face_is_named(opened: Any, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((300, 300)).save(tmp_path / "grey.png")
    page = with_face(opened(), tmp_path / "grey.png")
    page.get_by_text("No face was found in this photo.").wait_for()


@pytest.mark.parametrize("where", ["#photo", "#pose", "#control-canny-image"])
def test_a_damaged_picture_is_named_and_the_next_request_works(
    opened: Any, face: Path, tmp_path: Path, where: str
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 500)
    page = with_face(opened(), face)
    for fold in ("view", "controls"):
        page.locator(f"#{fold} button").first.click()
    page.get_by_role("tab", name="Edges").click()
    shown = page.locator(f"{where} img").first
    before = shown.get_attribute("src") if where == "#photo" else None
    upload(page, where, damaged)
    page.wait_for_function(
        "([where, before]) => (document.querySelector(where)?.getAttribute('src') ?? null) !== before",
        arg=[f"{where} img", before],
    )
    page.locator("#generate").click()
    page.get_by_text("damaged.png is damaged and cannot be opened").first.wait_for()
    assert "preprocess" not in page.locator(".toast-wrap").inner_text()
    page.locator(f"{where} button[aria-label='Remove Image']").first.click()
    if where == "#photo":
        upload(page, where, face)
        page.locator("#photo img").first.wait_for()
    assert generate(page).count() >= 1


def test_cancel_leaves_the_form_ready(opened: Any, face: Path) -> None:
    page = with_face(opened(), face)
    page.locator("#advanced button").first.click()
    page.locator("#field-steps input").fill("100")
    page.locator("#generate").click()
    page.locator("#cancel").click()
    page.locator(".empty", has_text="Cancelled. Nothing was lost").wait_for()
    page.locator("#field-steps input").fill("2")
    generate(page)


def test_ctrl_enter_generates(opened: Any, face: Path) -> None:
    page = with_face(opened(), face)
    page.locator("#field-prompt textarea").fill("a portrait")
    page.keyboard.press("Control+Enter")
    page.locator("#create-gallery img").first.wait_for(timeout=PICTURE_MS)


def test_a_pictures_settings_fill_the_form(opened: Any, tmp_path: Path) -> None:
    page = opened()
    for fold in ("advanced", "restore"):
        page.locator(f"#{fold} button").first.click()
    picture = Image.new("RGB", (64, 64))
    text = 'x\nInstantID: {"prompt":"a juggler","seed":7,"lora":[{"source":"owner/name"},{"source":"b","weight":0.5}]}'
    (tmp_path / "ours.jpg").write_bytes(metadata.encode(picture, "jpeg", text))
    upload(page, "#restore-file", tmp_path / "ours.jpg")
    page.get_by_text("The form has the picture's settings again.").wait_for()
    page.wait_for_function("document.querySelector('#loras textarea').value === 'owner/name:1\\nb:0.5'")
    assert page.locator("#field-prompt textarea").input_value() == "a juggler"
    theirs = "a fox\nSteps: 12, Sampler: Euler a, CFG scale: 4, Seed: 5, Size: 512x512, Model: <b>mix</b>, Clip skip: 3"
    (tmp_path / "theirs.png").write_bytes(metadata.encode(picture, "png", theirs))
    page.locator("#restore-file button[aria-label='Clear']").first.click()
    upload(page, "#restore-file", tmp_path / "theirs.png")
    page.get_by_text("Not taken over from the picture's settings: ").wait_for()
    assert "Model <b>mix</b>" in page.locator(".toast-wrap").inner_text()
    page.wait_for_function("document.querySelector('#field-prompt textarea').value === 'a fox'")
    assert page.locator("#loras textarea").input_value() == ""
