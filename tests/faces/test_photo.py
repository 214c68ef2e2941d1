"""Every file that people bring: formats, colours, depths, sizes, damage; and what each may cost."""

import io
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from instantid_demo.faces import photo
from instantid_demo.faces.photo import LARGEST, open_photo
from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT

DATA = Path(__file__).parent / "data"
WOMAN = ROOT / "assets" / "examples" / "woman.jpg"
P3 = {b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.15710, 0.06657, 0.78407)}
"""Display P3's primaries, adapted to D50."""


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    photo.formats()
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def wide() -> bytes:
    """A profile like sRGB's, with the primaries of Display P3."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        name, start, _ = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        if name in P3:
            struct.pack_into(">3i", profile, start + 8, *(round(value * 65536) for value in P3[name]))
    return bytes(profile)


def inks() -> bytes:
    """A CMYK profile of a press whose cyan prints as red: `A2B0` with two steps per ink."""
    table = bytearray(b"mft1" + bytes(4) + bytes((4, 3, 2, 0)))
    table += struct.pack(">9i", *(65536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table += bytes(range(256)) * 4
    for cyan in (0, 1):
        # Black ink, the last, changes first.
        table += ((bytes((120, 200, 180)) if cyan else bytes((255, 128, 128))) + bytes((0, 128, 128))) * 4
    table += bytes(range(256)) * 3
    parts = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(79),
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": bytes(table),
    }
    start, entries, body = 132 + 12 * len(parts), b"", b""
    for name, part in parts.items():
        part += bytes(-len(part) % 4)
        entries += struct.pack(">4sII", name, start + len(body), len(part))
        body += part
    header = bytearray(128)
    struct.pack_into(">I4sI4s4s4s", header, 0, start + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header[36:40] = b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + struct.pack(">I", len(parts)) + entries + body


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).max())


COLOURS = Image.fromarray(np.array([[[200, 60, 60], [60, 180, 90]], [[70, 80, 200], [128, 128, 128]]], np.uint8))
BLOCKS = COLOURS.resize((64, 64), Image.Resampling.NEAREST)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
        ("JXL", {"lossless": True}),
    ],
)
def test_colour_profiles_become_srgb(kind: str, options: dict[str, object]) -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(wide()))
    as_wide = ImageCms.profileToProfile(BLOCKS, ImageCms.createProfile("sRGB"), profile)
    assert difference(as_wide, BLOCKS) > 15
    found = open_photo(saved(as_wide, kind, icc_profile=wide(), **options))
    inner = (slice(4, 28), slice(4, 28))
    assert np.abs(np.asarray(found, int)[inner] - np.asarray(BLOCKS, int)[inner]).max() <= 4
    assert not found.info


def test_transparent_and_palette_pictures_keep_their_profile() -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(wide()))
    as_wide = ImageCms.profileToProfile(BLOCKS, ImageCms.createProfile("sRGB"), profile)
    palette = as_wide.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    as_wide.putalpha(255)
    assert difference(open_photo(saved(as_wide, "PNG", icc_profile=wide())), BLOCKS) <= 4
    assert difference(open_photo(saved(palette, "PNG", icc_profile=wide())), BLOCKS) <= 4


def test_srgb_profiles_leave_every_pixel_and_broken_ones_too() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile", srgb[:200], inks()):
        assert difference(open_photo(saved(BLOCKS, "PNG", icc_profile=profile)), BLOCKS) == 0


def test_cmyk_is_read_with_its_own_profile() -> None:
    cyan = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    red, _, blue = open_photo(saved(cyan, "JPEG", quality=100, icc_profile=inks())).getpixel((9, 9))
    assert red > blue + 40
    red, _, blue = open_photo(saved(cyan, "JPEG", quality=100)).getpixel((9, 9))
    assert red < blue - 40


def test_heic_and_jpeg_xl_are_read_upright() -> None:
    woman = open_photo(WOMAN).resize((320, 320))
    assert np.abs(np.asarray(open_photo(DATA / "woman.heic"), float) - np.asarray(woman, float)).mean() < 6
    # Stored lying on its side, with the turn in the file.
    upright = open_photo(DATA / "turned.heic")
    assert upright.size == (300, 320)
    assert np.abs(np.asarray(upright, float)[:, :300] - np.asarray(woman, float)[:, 20:]).mean() < 9
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "L", "RGBA"):
        xl = open_photo(saved(woman.convert(mode), "JXL", exif=exif.tobytes()))
        # JPEG XL's own orientation counts, not the one that EXIF repeats.
        assert xl.size == (320, 320)
        wanted = woman.convert(mode).convert("RGB")
        assert np.abs(np.asarray(xl, float) - np.asarray(wanted, float)).mean() < 6


def test_large_heic_pictures_are_read_without_a_whole_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_photo(DATA / "woman.heic")
    monkeypatch.setattr(photo, "LARGEST", 160 * 160)
    found = photo.read(DATA / "woman.heic")
    assert found.picture.size == (160, 160)
    assert found.scale == 2
    assert difference(photo.rgb(found.picture), whole.reduce(2)) <= 1


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        (np.linspace(0, 1, 64, dtype=np.float32), 128),
        (np.linspace(0, 255, 64, dtype=np.float32), 128),
        (np.linspace(0, 65535, 64, dtype=np.float32), 128),
        (np.linspace(0, 4e6, 64, dtype=np.float32), 128),
        (np.array([-1, np.nan, np.inf, *np.linspace(0, 1, 61)], np.float32), 125),
        (np.linspace(0, 65535, 64).astype(np.int32), 128),
        (np.linspace(0, 255, 64).astype(np.int32), 128),
        (np.linspace(0, 2**31 - 1, 64).astype(np.int32), 128),
        (np.linspace(0, 65535, 64).astype(np.uint16), 128),
    ],
)
def test_every_depth_fills_the_range(values: np.ndarray, middle: int) -> None:
    row = np.asarray(open_photo(saved(Image.fromarray(np.tile(values, (16, 1))), "TIFF")))[8, :, 0]
    assert row[-1] == 255
    assert abs(int(row[32]) - middle) <= 4
    assert (np.diff(row[3:].astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        *((mode, how) for mode in ("YCbCr", "CMYK", "LAB", "RGBA", "P", "1") for how in (None, "tiff_lzw", "packbits")),
        ("YCbCr", "jpeg"),
        ("CMYK", "jpeg"),
    ],
)
def test_tiff_of_every_mode(mode: str, compression: str | None) -> None:
    woman = open_photo(WOMAN).resize((96, 96))
    if mode == "LAB":
        srgb = ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(woman, srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
    else:
        picture = woman.convert(mode)
    found = np.asarray(open_photo(saved(picture, "TIFF", compression=compression)), float)
    wanted = picture.convert("RGB") if mode in ("P", "1") else woman
    assert np.abs(found - np.asarray(wanted, float)).mean() < 6


def test_a_jpeg_without_its_end_is_read() -> None:
    whole = open_photo(WOMAN)
    for kind in ({}, {"progressive": True}):
        content = saved(whole, "JPEG", quality=90, **kind)
        for left in (len(content) - 2, round(0.9 * len(content)), round(0.7 * len(content))):
            found = photo.read(content[:left])
            assert found.cut
            assert found.picture.size == whole.size
            half = (0, 0, whole.width, whole.height // 2)
            kept = np.asarray(found.picture.crop(half), float)
            assert np.abs(kept - np.asarray(whole.crop(half), float)).mean() < 4
    assert not photo.read(content).cut
    with pytest.raises(RequestError, match="most of it is missing"):
        photo.read(saved(whole, "JPEG", quality=90)[: len(content) // 4])


def test_large_jpegs_are_reduced_while_they_are_decoded() -> None:
    content = saved(Image.open(WOMAN).convert("L").resize((14400, 14000)), "JPEG", quality=70)
    found = photo.read(content)
    assert found.picture.size == (3600, 3500)
    assert found.scale == 4
    small = np.asarray(found.picture.resize((90, 90)), float)
    assert np.abs(small - np.asarray(Image.open(WOMAN).convert("L").resize((90, 90)), float)).mean() < 4


def test_other_large_pictures_are_reduced_in_their_own_mode() -> None:
    plain = Image.open(WOMAN).convert("RGB").resize((4400, 4200))
    for picture in (plain, plain.convert("P"), plain.convert("L").convert("I")):
        found = photo.read(saved(picture, "PNG", compress_level=1))
        assert found.picture.size == (2200, 2100)
        assert found.scale == 2
        assert found.picture.size[0] * found.picture.size[1] <= LARGEST
        small = np.asarray(open_photo(saved(picture, "PNG", compress_level=1)).resize((90, 90)).convert("L"), float)
        wanted = np.asarray(picture.convert("RGB" if picture.mode == "P" else "L").convert("L").resize((90, 90)), float)
        assert np.abs(small - wanted).mean() < 8


GREEDY: dict[str, tuple[str, object, dict[str, object]]] = {
    "float.tif": ("F", 0.5, {"compression": "tiff_deflate"}),
    "int.tif": ("I", 9000, {"compression": "tiff_deflate"}),
    "deep.png": ("I;16", 9000, {"compress_level": 1}),
    "clear.png": ("RGBA", (9, 9, 9, 9), {"compress_level": 1}),
    "ink.jpg": ("CMYK", (9, 9, 9, 9), {"progressive": True}),
    "flat.webp": ("RGBA", (9, 9, 9, 9), {"lossless": True, "method": 0}),
    "turned.tif": ("RGB", (9, 9, 9), {"compression": "tiff_lzw", "tiffinfo": {274: 6}}),
    "strip.tif": ("RGBA", (9, 9, 9, 9), {"compression": "tiff_lzw", "strip_size": 2**31 - 1}),
}
"""Mode, colour and options of pictures that are far larger in memory than as files."""
_COST = """
import sys
from pathlib import Path
from instantid_demo.faces import photo
from instantid_demo.request import RequestError
photo.open_photo(photo.Image.new("RGBA", (64, 64)))
photo.formats()
def memory(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) / 1024
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
try:
    photo.open_photo(Path(sys.argv[1]))
except RequestError as error:
    print(error, file=sys.stderr)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured through Linux's /proc")
@pytest.mark.parametrize("name", GREEDY)
def test_no_file_costs_more_than_its_share_of_memory(name: str, tmp_path: Path) -> None:
    mode, colour, options = GREEDY[name]
    Image.new(mode, (6900, 7100), colour).save(tmp_path / name, **options)
    run = [sys.executable, "-c", _COST, str(tmp_path / name)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(done.stdout) < 400
    # One sentence or none: libraries say nothing besides.
    assert done.stderr.count("\n") <= 1


def test_files_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = [0], [0]
    usual = photo._decoded

    def counted(found: bytes, name: str) -> photo.Photo:
        running[0] += 1
        most[0] = max(most[0], running[0])
        try:
            return usual(found, name)
        finally:
            running[0] -= 1

    monkeypatch.setattr(photo, "_decoded", counted)
    threads = [threading.Thread(target=open_photo, args=(WOMAN,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PCX", "SGI", "DDS", "ICNS", "PDF"])
def test_rare_formats_stay_closed(kind: str) -> None:
    with pytest.raises(RequestError, match=r"use JPEG, PNG.* or WebP\.$"):
        open_photo(saved(Image.new("RGB", (64, 64)), kind))


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "JXL", "HEIF"]
)
def test_damage_of_any_kind_ends_in_one_sentence(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    woman = Image.open(WOMAN).convert("RGB").resize((64, 64))
    content = (DATA / "woman.heic").read_bytes() if kind == "HEIF" else saved(woman, kind)
    rng = np.random.default_rng(5)
    for turn in range(40):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(damaged), 300 if turn % 2 else len(damaged)), 8):
            damaged[place] = rng.integers(0, 256)
        damaged = damaged[: rng.integers(8, len(damaged))] if turn % 5 == 0 else damaged
        said = ""
        try:
            open_photo(bytes(damaged))
        except RequestError as error:
            said = str(error)
        assert not said or re.fullmatch("[A-Z].+[.]", said)
    assert capfd.readouterr().err == ""


def test_what_is_no_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", tmp_path, Path("/dev/zero"), Path("/proc/self/mem"), Path("a\0b.jpg")):
        with pytest.raises(RequestError, match=r"^[^/]*\.$"):
            open_photo(path)


def test_which_pictures_a_browser_shows(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes((DATA / "woman.heic").read_bytes())
    ImageOps.invert(BLOCKS).save(tmp_path / "b.tif")
    assert not photo.is_shown_by_browsers(tmp_path / "a.jpg")
    assert not photo.is_shown_by_browsers(tmp_path / "b.tif")
    assert photo.is_shown_by_browsers(WOMAN)
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 500)
    for broken in (tmp_path / "c.png", tmp_path / "none.png"):
        assert photo.is_shown_by_browsers(broken)
    assert {".heic", ".heif", ".jxl"} == set(photo.extra_suffixes())
