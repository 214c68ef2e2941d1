"""`python -m instantid_demo.provenance.attacks --portraits DIR`: what the watermark survives, and its false alarms."""

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from instantid_demo.provenance import watermark

SIDE_NOTE = "each portrait at 256 px sharp, at 256 px soft (enlarged from 96 px, as Pocket's pictures are), at 512 px"


def reencoded(kind: str, quality: int) -> Callable[[Image.Image], Image.Image]:
    """Saving as JPEG or WebP."""

    def attack(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, kind, quality=quality)
        return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")

    return attack


def resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    """Making larger or smaller."""
    return lambda p: p.resize((round(p.width * factor), round(p.height * factor)), Image.Resampling.LANCZOS)


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """Cutting away a share of both sides, more at the left and top than elsewhere."""

    def attack(picture: Image.Image) -> Image.Image:
        x, y = round(picture.width * share), round(picture.height * share)
        return picture.crop(
            (round(0.7 * x), round(0.6 * y), picture.width - round(0.3 * x), picture.height - round(0.4 * y))
        )

    return attack


ATTACKS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda picture: picture,
    "JPEG quality 80": reencoded("JPEG", 80),
    "JPEG quality 60": reencoded("JPEG", 60),
    "WebP quality 80": reencoded("WEBP", 80),
    "resized ×0.75": resized(0.75),
    "resized ×0.5": resized(0.5),
    "resized ×1.5": resized(1.5),
    "cropped by 10 %": cropped(0.1),
    "×0.75, then JPEG 80": lambda picture: reencoded("JPEG", 80)(resized(0.75)(picture)),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brighter by a third": lambda picture: ImageEnhance.Brightness(picture).enhance(1.33),
    "blurred (radius 1)": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "rotated by 3°": lambda picture: picture.rotate(3, Image.Resampling.BICUBIC),
}


def pictures(folder: Path) -> Iterator[Image.Image]:
    """The portraits in the sizes that pictures are saved in, soft ones among them."""
    for file in sorted(folder.glob("*.jpg")):
        portrait = Image.open(file).convert("RGB")
        yield portrait.resize((256, 256), Image.Resampling.LANCZOS)
        yield portrait.resize((96, 96), Image.Resampling.LANCZOS).resize((256, 256), Image.Resampling.LANCZOS)
        yield portrait.resize((512, 512), Image.Resampling.LANCZOS)


def crops(folder: Path, count: int, seed: int = 0) -> Iterator[Image.Image]:
    """Unmarked crops of random place and size."""
    draw = np.random.default_rng(seed)
    portraits = [Image.open(file).convert("RGB") for file in sorted(folder.glob("*.jpg"))]
    for _ in range(count):
        portrait = portraits[int(draw.integers(len(portraits)))]
        side = int(draw.integers(128, min(portrait.size)))
        x, y = (int(draw.integers(0, size - side + 1)) for size in portrait.size)
        yield portrait.crop((x, y, x + side, y + side))


def main(argv: list[str] | None = None) -> int:
    """Prints the attack table; with `--crops N` also how often N unmarked crops raise an alarm."""
    parser = argparse.ArgumentParser(prog="python -m instantid_demo.provenance.attacks", description=__doc__)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=0, help="unmarked crops to look at; 0: none")
    given = parser.parse_args(argv)
    originals = list(pictures(given.portraits))
    marked = [watermark.embed(picture) for picture in originals]
    noise = [_psnr(a, b) for a, b in zip(originals, marked, strict=True)]
    print(f"{len(marked)} marked pictures: {SIDE_NOTE}.")
    print(f"PSNR: mean {np.mean(noise):.1f} dB, lowest {min(noise):.1f} dB.")
    print("\n| attack | detected |\n|---|---|")
    for name, attack in ATTACKS.items():
        found = np.mean([watermark.detect(attack(picture)).found for picture in marked])
        print(f"| {name} | {100 * found:.1f} % |", flush=True)
    large = originals[0].resize((1024, 1024))
    began = time.perf_counter()
    watermark.embed(large)
    print(f"\nMarking 1024×1024 took {1000 * (time.perf_counter() - began):.0f} ms.")
    if given.crops:
        scores = [watermark.detect(crop).score for crop in crops(given.portraits, given.crops)]
        alarms = sum(score >= 1 for score in scores)
        print(f"{given.crops} unmarked crops: {alarms} false alarms, highest score {max(scores):.2f} of 1.")
    return 0


def _psnr(one: Image.Image, other: Image.Image) -> float:
    error = np.asarray(one).astype(np.float64) - np.asarray(other)
    return float(10 * np.log10(255**2 / max((error**2).mean(), 1e-9)))


if __name__ == "__main__":
    sys.exit(main())
