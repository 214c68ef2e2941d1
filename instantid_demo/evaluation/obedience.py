"""Whether a style shows, without any classifier: each style promises something that can be measured on the pixels.

Film noir promises that colour is gone and the picture darker; mars promises a red background. Every rule names the
measure, its bound and the reason. A bound is absolute where the style is (no colour is no colour), and a difference to
the plain picture of the same person and seed where the style is a change of it. Colours are CIE Lab (L 0..100).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

SIDE = 128
"""Pictures are measured at this size, so that bounds hold for every model."""
_BORDER = 0.16


@dataclass(frozen=True)
class Rule:
    """One promise of a style: `measure` is above or below `bound`, or changes by it against the plain picture."""

    measure: str
    sense: Literal["above", "below", "rises by", "falls by"]
    bound: float
    why: str

    def holds(self, styled: Mapping[str, float], plain: Mapping[str, float]) -> bool:
        """Whether the measures of a styled picture keep the promise, given those of the plain one."""
        value = styled[self.measure]
        change = value - plain[self.measure]
        return {
            "above": value > self.bound,
            "below": value < self.bound,
            "rises by": change > self.bound,
            "falls by": -change > self.bound,
        }[self.sense]

    def __str__(self) -> str:
        return f"{self.measure} {self.sense} {self.bound:g} ({self.why})"


_NO_COLOUR = Rule("colour", "below", 6, "drawn or filmed without colour")
RULES: dict[str, tuple[Rule, ...]] = {
    "film noir": (_NO_COLOUR, Rule("light", "falls by", 5, "most of it lies in shadow")),
    "black and white": (_NO_COLOUR,),
    "sepia": (
        Rule("yellow", "above", 8, "brown toning"),
        Rule("colour variety", "below", 3, "one tone for everything"),
    ),
    "vintage photo": (Rule("deepest shadow", "rises by", 8, "old prints have faded blacks"),),
    "pencil sketch": (_NO_COLOUR, Rule("light", "above", 65, "white paper")),
    "charcoal drawing": (_NO_COLOUR, Rule("edges", "rises by", 1, "rough strokes")),
    "line art": (_NO_COLOUR, Rule("light", "above", 65, "white paper")),
    "blueprint": (
        Rule("yellow", "below", -10, "blue paper"),
        Rule("colour variety", "below", 6, "white lines on one blue"),
    ),
    "watercolor": (Rule("background light", "rises by", 6, "paper shows around the paint"),),
    "oil painting": (Rule("colour", "rises by", 3, "rich pigments"),),
    "pastel": (
        Rule("light", "rises by", 8, "pale colours"),
        Rule("contrast", "falls by", 3, "chalk has no deep shadows"),
    ),
    "pop art": (Rule("colour", "above", 40, "garish inks"),),
    "pixel art": (Rule("equal neighbours", "rises by", 0.1, "large squares of one colour"),),
    "comic": (
        Rule("colour", "rises by", 2, "bright inks"),
        Rule("equal neighbours", "rises by", 0.15, "flat areas between the outlines"),
    ),
    "neon": (Rule("pink and cyan", "rises by", 0.2, "coloured tubes light the face"),),
    "cyberpunk": (Rule("pink and cyan", "rises by", 0.15, "magenta and teal city light"),),
    "vibrant color": (Rule("colour", "rises by", 8, "saturated colours"),),
    "golden hour": (Rule("yellow", "rises by", 7, "a low, warm sun"),),
    "snow": (
        Rule("background light", "rises by", 10, "snow behind the person"),
        Rule("background yellow", "falls by", 2, "cold light"),
    ),
    "jungle": (Rule("background red", "falls by", 8, "green leaves behind the person"),),
    "mars": (Rule("background red", "rises by", 10, "red desert behind the person"),),
    "low key": (Rule("background light", "falls by", 12, "a dark background"),),
    "studio portrait": (Rule("background colour", "falls by", 1.5, "a grey backdrop"),),
}
"""Style key -> what it promises; a style without an entry is not judged."""


def measures(picture: Image.Image) -> dict[str, float]:
    """All measures of a picture.

    Colours in Lab units: light, contrast (deviation of light), deepest shadow (5th percentile of light), colour
    (distance from grey), yellow (negative: blue); the same of the background's left, right and upper border, where red
    (negative: green) counts as well. Edges: mean step of light between neighbouring pixels. Equal neighbours: share of
    neighbouring pixels of the same colour. Colour variety: deviation of the colours from what light alone predicts:
    near 0 where the whole picture has one tone. Pink and cyan: share of clearly coloured pixels of these hues.
    """
    lab = _lab(picture)
    light, red, yellow = lab[..., 0], lab[..., 1], lab[..., 2]
    colour = np.hypot(red, yellow)
    hue = np.degrees(np.arctan2(yellow, red)) % 360
    steps = np.concatenate([np.abs(np.diff(lab, axis=0)).max(-1).ravel(), np.abs(np.diff(lab, axis=1)).max(-1).ravel()])
    light_steps = np.concatenate([np.abs(np.diff(light, axis=0)).ravel(), np.abs(np.diff(light, axis=1)).ravel()])
    tubes = (colour > 18) & (((hue > 290) & (hue < 360)) | ((hue > 170) & (hue < 285)))
    behind = _background(light.shape)
    found = {
        "light": light.mean(),
        "contrast": light.std(),
        "deepest shadow": np.percentile(light, 5),
        "colour": colour.mean(),
        "yellow": yellow.mean(),
        "edges": light_steps.mean(),
        "equal neighbours": (steps < 1.0).mean(),
        "colour variety": _variety(lab),
        "pink and cyan": tubes.mean(),
        "background light": light[behind].mean(),
        "background contrast": light[behind].std(),
        "background colour": colour[behind].mean(),
        "background red": red[behind].mean(),
        "background yellow": yellow[behind].mean(),
    }
    return {name: float(value) for name, value in found.items()}


def judge(style: str, styled: list[Image.Image], plain: list[Image.Image]) -> dict[str, object]:
    """How a style's pictures keep its promises; `plain[i]` shows the same person and seed without style."""
    rules = RULES[style]
    pairs = [(measures(one), measures(other)) for one, other in zip(styled, plain, strict=True)]
    kept = [all(rule.holds(*pair) for rule in rules) for pair in pairs]
    return {
        "obeyed": round(float(np.mean(kept)), 4),
        "rules": [str(rule) for rule in rules],
        "values": {
            rule.measure: {
                "styled": round(float(np.mean([with_style[rule.measure] for with_style, _ in pairs])), 3),
                "plain": round(float(np.mean([without[rule.measure] for _, without in pairs])), 3),
            }
            for rule in rules
        },
    }


def difference(pictures: list[Image.Image]) -> float:
    """Mean distance between any two of the pictures of one request: root mean square of light and colour, Lab units."""
    labs = [_lab(picture) for picture in pictures]
    pairs = [(a, b) for index, a in enumerate(labs) for b in labs[index + 1 :]]
    return float(np.mean([np.sqrt(np.square(a - b).sum(-1).mean()) for a, b in pairs])) if pairs else 0.0


def detail(made: Image.Image, portrait: Image.Image) -> float:
    """Sharpness against the portrait in the same framing and size: ratio of the steps of light, 1 equal."""
    return measures(made)["edges"] / max(measures(portrait)["edges"], 1e-6)


def _variety(lab: np.ndarray) -> float:
    light, colours = lab[..., 0].ravel() / 100, lab[..., 1:].reshape(-1, 2)
    predictors = np.stack([np.ones_like(light), light, light**2, light**3], 1)
    fitted = predictors @ np.linalg.lstsq(predictors, colours, rcond=None)[0]
    return float(np.sqrt(np.square(colours - fitted).sum(1).mean()))


def _background(shape: tuple[int, ...]) -> np.ndarray:
    """Mask of the left, right and upper border: seldom face, mostly background in a portrait."""
    edge = round(_BORDER * shape[0])
    mask = np.zeros(shape, bool)
    mask[: round(0.75 * shape[0]), :edge] = mask[: round(0.75 * shape[0]), -edge:] = True
    mask[: edge // 2] = True
    return mask


def _lab(picture: Image.Image) -> np.ndarray:
    import cv2

    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return cv2.cvtColor(np.asarray(small, np.float32) / 255, cv2.COLOR_RGB2LAB)
