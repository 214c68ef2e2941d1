"""Marks and signatures on real files: kept, tampered with, stripped, re-encoded, resized."""

import contextlib
import io
import json
import socket
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from instantid_demo import saving
from instantid_demo.provenance import attacks, credentials, metadata, watermark
from instantid_demo.provenance.verify import Verification, verify
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
        "steps": 20,
        "guidance": 7,
        "scheduler": "euler_ancestral",
        "seed": 5,
        "width": 512,
        "height": 768,
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


@pytest.fixture
def loopback() -> Iterator[tuple[str, list[bytes]]]:
    """An address on this machine, and what was asked of it."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = server.accept()
                    with caller:
                        asked.append(caller.recv(100))

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x.c2pa", asked


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="URL"/>'
    "</rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_no_address_in_a_picture_is_ever_asked(
    kind: str, signed: bool, loopback: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    address, asked = loopback
    xmp, buffer = XMP.replace("URL", address), io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    picture().save(buffer, kind, **({"pnginfo": info} if kind == "png" else {"xmp": xmp.encode()}))
    data = buffer.getvalue()
    if signed:
        data = credentials.Signer.of(tmp_path / "home").sign(data, saving.MIMES[kind], credentials.Claims(("X",)))
    file = tmp_path / f"x.{kind}"
    file.write_bytes(data)
    found = verify(file, home=tmp_path / "home")
    assert (found.manifest, found.own) == (("untrusted", True) if signed else ("absent", False))
    assert asked == []


def test_this_installations_key_is_told_from_others(saved: Path, settings: Settings, tmp_path: Path) -> None:
    assert verify(saved).own is False
    assert verify(saved, home=tmp_path).own is False
    assert not (tmp_path / "signing").exists()
    here = verify(saved, home=settings.home)
    assert (here.manifest, here.own) == ("untrusted", True)
    assert "this very installation" in here.words
    other = credentials.Signer.of(tmp_path).sign(plain_png(), "image/png", credentials.Claims(("Pocket preview",)))
    (tmp_path / "other.png").write_bytes(other)
    there = verify(tmp_path / "other.png", home=settings.home)
    assert (there.manifest, there.own) == ("untrusted", False)
    assert "made here" not in there.words
    trusted = verify(saved, settings.home / "signing" / "certificates.pem", settings.home)
    assert trusted.manifest == "trusted"


def plain_png() -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    return buffer.getvalue()


GARBAGE = {
    "empty": b"",
    "text": b"certificates",
    "binary": bytes(range(256)),
    "damaged": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "a key": None,
}


@pytest.mark.parametrize("name", [*GARBAGE, "missing", "a folder"])
def test_anchors_without_certificates_get_a_sentence(
    name: str, saved: Path, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "anchors.pem"
    if name == "a folder":
        file.mkdir()
    elif name != "missing":
        file.write_bytes(GARBAGE[name] or (settings.home / "signing" / "key.pem").read_bytes())
    with pytest.raises(RequestError, match=r"^anchors\.pem .*PEM file of certificates\.$"):
        verify(saved, file)


def test_anchors_may_hold_more_than_certificates(saved: Path, settings: Settings, tmp_path: Path) -> None:
    folder = settings.home / "signing"
    (tmp_path / "both.pem").write_bytes((folder / "key.pem").read_bytes() + (folder / "certificates.pem").read_bytes())
    assert verify(saved, tmp_path / "both.pem").manifest == "trusted"


ACTION = {"action": "c2pa.created", "digitalSourceType": credentials.TRAINED}


@pytest.mark.parametrize(
    ("label", "data", "models"),
    [
        ("c2pa.actions", {"actions": [{**ACTION, "parameters": {"models": 5}}]}, ()),
        ("c2pa.actions", {"actions": [{**ACTION, "parameters": {"models": None}}]}, ()),
        ("c2pa.actions", {"actions": [{**ACTION, "parameters": {"models": [1, {}]}}]}, ()),
        ("c2pa.actions", {"actions": [ACTION, {"action": "c2pa.edited", "parameters": {"models": ["X"]}}]}, ("X",)),
        ("c2pa.actions", {"actions": [{**ACTION, "parameters": {"models": ["a\x1b[31m", "", "b\nc"]}}]}, ("b c",)),
        ("org.evil.actions", {"actions": 5}, ("honest",)),
        ("org.evil.actions", {"actions": ["x"]}, ("honest",)),
        ("org.evil.actions", [1, 2], ("honest",)),
        ("org.evil.actions", {"actions": [{"parameters": {"models": ["verified genuine photograph"]}}]}, ("honest",)),
    ],
)
def test_a_hostile_manifest_says_little(label: str, data: Any, models: tuple[str, ...], tmp_path: Path) -> None:
    honest = {"label": "c2pa.actions", "data": {"actions": [{**ACTION, "parameters": {"models": ["honest"]}}]}}
    found = signed_by_a_stranger(
        [{"label": label, "data": data}, *([honest] if label != "c2pa.actions" else [])], tmp_path
    )
    assert (found.manifest, found.models) == ("untrusted", models)


def test_a_hostile_manifest_is_cut_short(tmp_path: Path) -> None:
    names = [f"{number} " + "x" * 1000 for number in range(1000)]
    data = {"actions": [{**ACTION, "parameters": {"models": names}}]}
    found = signed_by_a_stranger([{"label": "c2pa.actions", "data": data}], tmp_path)
    assert len(found.models) == 8
    assert len(found.words) < 1200


def signed_by_a_stranger(assertions: list[dict[str, Any]], folder: Path) -> Verification:
    """What a picture with these assertions tells, signed with somebody's home-made key."""
    import c2pa

    credentials.Signer.of(folder)
    certificates, key = ((folder / "signing" / name).read_bytes() for name in ("certificates.pem", "key.pem"))
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, certificates, key, None)
    signed = io.BytesIO()
    manifest = json.dumps({"claim_generator_info": [{"name": "x", "version": "1"}], "assertions": assertions})
    with (
        c2pa.Context(c2pa.Settings.from_json('{"builder": {"thumbnail": {"enabled": false}}}')) as context,
        c2pa.Builder(manifest, context) as builder,
        c2pa.Signer.from_info(info) as signer,
    ):
        builder.sign(signer, "image/png", io.BytesIO(plain_png()), signed)
    file = folder / "hostile.png"
    file.write_bytes(signed.getvalue())
    return verify(file)


def test_the_pixels_are_decoded_once(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    for kind in (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile, WebPImagePlugin.WebPImageFile):

        def load(self: Any, real: Any = kind.load) -> Any:
            if getattr(self, "_im", None) is None or self.tile:
                decoded.append(self.format)
            return real(self)

        monkeypatch.setattr(kind, "load", load)
    verify(saved)
    assert len(decoded) == 1
    assert metadata.read_file(saved)["seed"] == 9
    assert len(decoded) == 1


def test_unknown_endings_and_forbidden_places_are_told_before_drawing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="saved as"):
        saving.check_place(tmp_path / "x.gif")
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be made"):
        saving.check_place(tmp_path / "file" / "below")
