"""Captions for the training photographs, from their labels and measured colours: plain words, many phrasings."""

import re
from collections.abc import Iterable

import numpy as np

_KINDS = ("photo", "photo", "portrait", "picture", "photograph", "headshot", "close-up photo", "image")
_AGES = {
    "20-29": ("young", "young adult", "20 year old"),
    "30-39": ("", "30 year old", "adult"),
    "40-49": ("middle-aged", "40 year old"),
    "50-59": ("mature", "50 year old", "middle-aged"),
    "60-69": ("older", "60 year old", "elderly"),
    "70+": ("old", "elderly", "70 year old"),
}
_COLOURS = {
    "white": (235, 235, 235),
    "grey": (128, 128, 128),
    "black": (20, 20, 20),
    "blue": (60, 110, 200),
    "green": (70, 130, 60),
    "red": (180, 40, 40),
    "brown": (110, 75, 45),
    "yellow": (225, 195, 70),
    "pink": (230, 150, 180),
}
_OPENINGS = ("{style} of {who}", "{who}, {style}", "{style}, {kind} of {who}", "{kind} of {who}, {style} style")


def caption(
    sex: str, age: str, style: str | None, picture: np.ndarray, ground: np.ndarray, draw: np.random.Generator
) -> str:
    """One caption of a face picture.

    Args:
        sex: man or woman; left out of the words half of the time, so that "person" fits everybody.
        age: Age group of the labels.
        style: A rendered style's word, or None for a photograph.
        picture: `(h, w, 3)` uint8 RGB, measured for light and background words.
        ground: `(h, w, 1)` in 0..1, 1 on the background.
        draw: Random source of the phrasing.
    """
    who = sex if draw.random() < 0.5 else "person"
    if draw.random() < 0.5:
        who = f"{_pick(_AGES[age], draw)} {who}".strip()
    who = f"an {who}" if who[0] in "aeio" else f"a {who}"
    kind = _pick(_KINDS, draw)
    words = f"a {kind} of {who}" if style is None else _pick(_OPENINGS, draw).format(style=style, who=who, kind=kind)
    if style is None:
        words += "".join(f", {extra}" for extra in measured(picture, ground) if draw.random() < 0.4)
    return words if draw.random() < 0.9 else words.removeprefix("a ")


def vocabulary(captions: Iterable[str]) -> list[str]:
    """All words of captions, lower case, in the order of the alphabet."""
    return sorted({word for text in captions for word in re.findall(r"[^\W\d][\w'-]*", text.lower())})


def measured(picture: np.ndarray, ground: np.ndarray) -> list[str]:
    """Words for what is measurable: light, and the background's colour where it is even."""
    words = []
    grey = float(picture.mean())
    if grey < 75:
        words.append("dark lighting")
    elif grey > 165:
        words.append("bright lighting")
    warm = float(picture[..., 0].mean() - picture[..., 2].mean())
    if warm > 45:
        words.append("warm light")
    elif warm < -5:
        words.append("cold light")
    behind = picture[ground[..., 0] > 0.8].astype(np.float32)
    if len(behind) > 200:
        mean = behind.mean(0)
        name, distance = min(
            ((name, float(np.abs(mean - colour).mean())) for name, colour in _COLOURS.items()), key=lambda pair: pair[1]
        )
        if distance < 40:
            words.append(f"{name} background")
        words.append("plain background" if behind.std(0).mean() < 28 else "blurred background")
    return words


def _pick(options: tuple[str, ...], draw: np.random.Generator) -> str:
    return options[int(draw.integers(len(options)))]
