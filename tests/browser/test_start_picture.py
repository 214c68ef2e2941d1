"""Start pictures and masks on the page and through the API: what is not painted stays as it was."""

from pathlib import Path
from typing import Any

import gradio_client
import pytest
from PIL import Image

from tests.browser.conftest import generate, paint, upload, with_face
from tests.inpainting import Box, compared, painted

handle_file = gradio_client.handle_file

pytestmark = pytest.mark.browser
MIDDLE: Box = (0.25, 0.22, 0.75, 0.7)
"""What the strokes cover, and a little around it."""


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    return gradio_client.Client(address, verbose=False)


def started(page: Any, start: Path) -> Any:
    """The Create tab with a start picture."""
    page.locator("#start button").first.click()
    page.locator("#init canvas").first.wait_for()
    page.wait_for_timeout(1500)  # the editor takes a moment to set its canvas up, and no picture before
    upload(page, "#init", start)
    page.wait_for_timeout(1500)  # the editor fits the picture into its frame
    page.locator("#field-strength input[type=number]").fill("1")
    return page


def made(page: Any, outputs: Path) -> Path:
    before = set(outputs.iterdir())
    generate(page)
    (file,) = set(outputs.iterdir()) - before
    return file


@pytest.mark.parametrize("size", [(400, 400), (1600, 1200)])
def test_what_is_not_painted_on_the_page_stays(
    opened: Any, portraits: list[Path], outputs: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    start = tmp_path / "start.png"
    Image.open(portraits[4]).convert("RGB").resize(size).save(start)
    page = started(with_face(opened(), portraits[1]), start)
    paint(page)
    outside, inside = compared(made(page, outputs), start, MIDDLE)
    assert outside >= 40
    assert inside < 30


def test_a_hole_is_filled_on_the_page(opened: Any, portraits: list[Path], outputs: Path, tmp_path: Path) -> None:
    start = Image.open(portraits[4]).convert("RGBA")
    start.putalpha(Image.open(painted(tmp_path / "mask.png", start.size)).point(lambda value: 255 - value))
    start.save(tmp_path / "start.png")
    page = started(with_face(opened(), portraits[1]), tmp_path / "start.png")
    outside, inside = compared(made(page, outputs), portraits[4])
    assert outside >= 40
    assert inside < 30


@pytest.mark.parametrize("how", ["layer", "labels", "hole"])
def test_masks_mean_the_same_through_the_api(client: Any, portraits: list[Path], tmp_path: Path, how: str) -> None:
    mask = Image.open(painted(tmp_path / "mask.png", (400, 400)))
    start, given = portraits[55], {"init": handle_file(portraits[55])}
    if how == "hole":
        holed = Image.open(start).convert("RGBA")
        holed.putalpha(mask.point(lambda value: 255 - value))
        holed.save(tmp_path / "start.png")
        given = {"init": handle_file(tmp_path / "start.png")}
    else:
        layer = mask.point(lambda value: value // 255)
        if how == "layer":
            layer = Image.new("RGBA", mask.size, "red")
            layer.putalpha(mask)
        layer.save(tmp_path / "layer.png")
        given["mask"] = handle_file(tmp_path / "layer.png")
    photo = handle_file(portraits[0])
    files, _ = client.predict(photo=photo, seed=7, settings={"strength": 1.0}, **given, api_name="/generate")
    outside, inside = compared(Path(files[0]), start)
    assert outside >= 40
    assert inside < 30


def test_small_changes_and_empty_windows_through_the_api(client: Any, portraits: list[Path]) -> None:
    photo, start = handle_file(portraits[0]), handle_file(portraits[55])
    asked = {"photo": photo, "init": start, "seed": 7, "quality": "draft", "api_name": "/generate"}
    files, report = client.predict(settings={"strength": 0.1, "identity_start": 0.5, "identity_end": 0.5}, **asked)
    assert len(files) == 1
    assert any("one smaller step" in note for note in report["notes"])
    assert any("IdentityNet did nothing" in note for note in report["notes"])


def test_an_empty_mask_is_one_sentence_of_the_api(client: Any, portraits: list[Path], tmp_path: Path) -> None:
    Image.new("L", (400, 400)).save(tmp_path / "mask.png")
    with pytest.raises(gradio_client.exceptions.AppError, match="Nothing is painted in the mask"):
        client.predict(
            photo=handle_file(portraits[0]),
            init=handle_file(portraits[55]),
            mask=handle_file(tmp_path / "mask.png"),
            api_name="/generate",
        )
