"""Marks and signatures on real files: kept, tampered with, stripped, re-encoded, resized."""

import io
import stat
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instantid_demo import saving
from instantid_demo.provenance import attacks, metadata, watermark
from instantid_demo.provenance.verify import verify
from instantid_demo.request import Consent, GenerationRequest, Likeness, RequestError, Result
from instantid_demo.settings import Settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"))


def picture(side: int = 128) -> Image.Image:
    """A soft face-like blob."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    light = 180 * np.exp(-8 * (x**2 + 1.4 * y**2)) + 40
    return Image.fromarray(np.stack([light, light * 0.8, light * 0.65], -1).astype(np.uint8))


def result(**fields) -> Result:
    request = GenerationRequest(
        **{
            "face": (Path("secret-name.jpg"),),
            "prompt": "a man, (red:1.2) hat: Steps: 3",
            "negative_prompt": "blurry",
            "style": "film noir",
            "model": "pocket",
            "seed": 9,
            "steps": 4,
            "guidance": 1.5,
            "width": 128,
            "height": 128,
            "consent": Consent(statement="I may use this face (1)", time=datetime(2026, 1, 2, tzinfo=UTC)),
            **fields,
        }
    )
    return Result(
        pictures=(picture(),),
        seeds=(9,),
        likeness=((Likeness(value=0.7, word="strong"),),),
        seconds={"total": 1.0},
        request=request,
        model_name="Pocket preview",
    )


@pytest.fixture(scope="module", params=["png", "jpeg", "webp"])
def saved(request: pytest.FixtureRequest, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saving.save(result(format=request.param), tmp_path_factory.mktemp("out"), settings)[0]


def test_a_saved_picture_says_where_it_is_from(saved: Path) -> None:
    found = verify(saved)
    assert (found.manifest, found.watermark, found.models) == ("untrusted", True, ("Pocket preview",))
    assert found.settings["prompt"] == "a man, (red:1.2) hat: Steps: 3"
    assert found.settings["style"] == "film noir"
    assert found.settings["seed"] == 9
    assert min(Image.open(saved).size) == 256


def test_no_path_and_no_prompt_get_into_the_manifest(saved: Path) -> None:
    import c2pa

    content = saved.read_bytes()
    assert b"secret-name" not in content
    mime = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}[saved.suffix]
    manifest = c2pa.Reader(mime, io.BytesIO(content)).json()
    assert "hat" not in manifest
    assert "likeness of a real person" in manifest
    assert "trainedAlgorithmicMedia" in manifest
    assert "2026-01-02" in manifest


def test_the_prompt_is_signed_only_when_asked_for(settings: Settings, tmp_path: Path) -> None:
    import c2pa

    file = saving.save(result(prompt_in_credentials=True), tmp_path, settings)[0]
    assert "red:1.2" in c2pa.Reader("image/png", io.BytesIO(file.read_bytes())).json()


def test_a_changed_picture_is_named_as_tampered(saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-60] ^= 1
    if saved.suffix == ".png":
        # The last chunk's checksum would stop the decoder: change the text in the metadata instead.
        content = bytearray(saved.read_bytes().replace(b"film noir", b"film noiR", 1))
    changed = tmp_path / saved.name
    changed.write_bytes(content)
    assert verify(changed).manifest == "tampered"


def test_a_stripped_picture_still_carries_the_watermark(saved: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped.jpg"
    Image.open(saved).convert("RGB").save(stripped, quality=80)
    found = verify(stripped)
    assert (found.manifest, found.watermark, found.settings) == ("absent", True, {})


@pytest.mark.parametrize(
    "name", ["JPEG quality 80", "WebP quality 80", "resized ×0.75", "resized ×0.5", "cropped by 10 %"]
)
def test_the_watermark_survives(name: str, portraits: list[Path]) -> None:
    for file in portraits[::20]:
        marked = watermark.embed(Image.open(file).convert("RGB").resize((256, 256)))
        assert watermark.detect(attacks.ATTACKS[name](marked)).found


def test_unmarked_pictures_raise_no_alarm_and_the_mark_is_faint(portraits: list[Path]) -> None:
    for file in portraits[::25]:
        portrait = Image.open(file).convert("RGB").resize((256, 256))
        assert not watermark.detect(portrait).found
        assert attacks._psnr(portrait, watermark.embed(portrait)) > 38


def test_guards_can_be_turned_off_by_the_host(tmp_path: Path) -> None:
    plain = Settings(home=tmp_path, watermark=False, credentials=False)
    found = verify(saving.save(result(), tmp_path / "out", plain)[0])
    assert (found.manifest, found.watermark) == ("absent", False)
    silent = Settings(home=tmp_path, watermark=False, credentials=False, prompt_in_metadata=False)
    assert "prompt" not in metadata.read_file(saving.save(result(), tmp_path / "out", silent)[0])


def test_the_signing_key_is_its_owners_alone(settings: Settings, saved: Path) -> None:
    key = settings.home / "signing" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_size_grows_by_little(saved: Path, settings: Settings) -> None:
    plain = settings.model_copy(update={"credentials": False})
    kind = saving.SUFFIXES[saved.suffix]
    without = len(saving.encoded(result(), 0, kind, plain))
    assert len(saving.encoded(result(), 0, kind, settings)) - without <= max(0.1 * without, 8192)


def test_other_tools_settings_are_read_too() -> None:
    text = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Model: x"
    assert metadata.parse(text) == {
        "prompt": "a cat",
        "negative_prompt": "dog",
        "steps": "20",
        "guidance": "7",
        "seed": "5",
        "width": "512",
        "height": "768",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "InstantID: {",
        "InstantID: " + "[" * 50_000,
        'InstantID: {"face": ["/etc/passwd"], "init": "/etc/passwd", "steps": 1e99, "nonsense": 1}',
        'InstantID: {"person": [{"face": "/etc/passwd", "region": {"x0": 0, "y0": 0, "x1": 1, "y1": 1}}]}',
        'InstantID: {"control": [{"kind": "canny", "image": "/etc/passwd"}]}',
        "x" * 10_000_000,
    ],
    ids=["empty", "damaged", "deep", "paths", "person", "control", "huge"],
)
def test_hostile_settings_give_nothing(text: str) -> None:
    assert metadata.parse(text) == {}


def test_what_is_no_picture_cannot_be_verified(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("text")
    with pytest.raises(RequestError):
        verify(tmp_path / "x.png")


def test_unknown_endings_and_forbidden_places_are_told_before_drawing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="saved as"):
        saving.check_place(tmp_path / "x.gif")
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be made"):
        saving.check_place(tmp_path / "file" / "below")
