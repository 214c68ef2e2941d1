"""`python -m instantid_demo.thumbnails`: draws the small pictures of the style chooser, one per style, with Pocket."""

import argparse
import sys
from pathlib import Path

from PIL import Image

from instantid_demo import styles
from instantid_demo.engine import Engine
from instantid_demo.request import GenerationRequest
from instantid_demo.settings import Settings

SIDE = 112
"""Pixels: twice a tile of the chooser, for dense screens."""


def main(argv: list[str] | None = None) -> int:
    """Writes `assets/styles/NAME.webp` for every style that is found."""
    parser = argparse.ArgumentParser(prog="python -m instantid_demo.thumbnails", description=__doc__)
    parser.add_argument("--face", type=Path, help="photo of the person shown; default: an example photo")
    parser.add_argument("--seed", type=int, default=3, help="of every picture; default 3")
    given = parser.parse_args(argv)
    settings = Settings()
    engine = Engine(settings)
    folder = settings.assets / "styles"
    folder.mkdir(parents=True, exist_ok=True)
    face = given.face or settings.assets / "examples" / "woman.jpg"
    for key in styles.load(settings.style_folders):
        request = GenerationRequest(model="pocket", face=(face,), style=key, seed=given.seed)
        picture = engine.generate(request).pictures[0].resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture.save(folder / f"{key.replace(' ', '-')}.webp", quality=82)
        print(key)
    return 0


if __name__ == "__main__":
    sys.exit(main())
