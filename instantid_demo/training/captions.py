"""Captions for the training pictures: what labels and scenes say of them, in plain words and many phrasings."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from instantid_demo.training.labelling.labels import Labels
from instantid_demo.training.rendered_styles import KEEPS_THE_GROUND, RENDERERS
from instantid_demo.training.scenes import SCENES

_KINDS = ("photo", "photo", "portrait", "picture", "photograph", "headshot", "close-up photo", "image", "selfie")
_PASSPORT = ("passport photo", "passport photo", "passport picture", "id photo")
_AGES = {
    "20-29": ("young", "young", "young adult", "20 year old"),
    "30-39": ("", "30 year old", "adult"),
    "40-49": ("middle-aged", "40 year old"),
    "50-59": ("mature", "50 year old", "middle-aged"),
    "60-69": ("older", "60 year old", "elderly", "old"),
    "70+": ("old", "elderly", "old", "70 year old"),
}
_WHO = {
    "man": ("man", "man", "man", "guy"),
    "woman": ("woman", "woman", "woman", "lady"),
    "": ("person", "person", "face"),
}
_BEFORE: dict[str, tuple[str, ...]] = {
    "smile": ("smiling", "happy"),
    "laugh": ("laughing", "laughing", "smiling"),
    "sad": ("sad", "unhappy"),
    "serious": ("serious",),
    "beard": ("bearded",),
    "bald": ("bald",),
    "blond": ("blond", "blonde"),
    "grey": ("grey-haired", "gray-haired"),
    "dark": ("dark-haired",),
}
"""Label -> words before the person."""
_AFTER: dict[str, tuple[str, ...]] = {
    "smile": ("smiling", "with a smile", "smile", "with a happy smile"),
    "laugh": ("laughing", "laughing out loud", "with a big laugh", "laugh", "with open mouth and teeth"),
    "sad": ("sad", "looking sad", "with a sad face", "unhappy"),
    "serious": ("serious", "with a serious face", "neutral expression"),
    "glasses": ("with glasses", "wearing glasses", "in glasses", "eyeglasses"),
    "sunglasses": ("with sunglasses", "wearing sunglasses", "in dark sunglasses", "sunglasses"),
    "beard": ("with a beard", "with a full beard", "beard"),
    "moustache": ("with a moustache", "with a mustache", "moustache"),
    "bald": ("with a bald head", "bald", "with a shaved head"),
    "blond": ("with blond hair", "with blonde hair", "blond hair", "fair hair"),
    "brown": ("with brown hair", "brown hair", "with light brown hair"),
    "grey": ("with grey hair", "with gray hair", "grey hair", "with white hair"),
    "dark": ("with dark hair", "with black hair", "dark hair"),
    "hat": ("wearing a hat", "with a hat", "in a hat", "with a cap", "wearing a cap"),
    "scarf": ("wearing a headscarf", "with a headscarf", "in a headscarf"),
    "lipstick": ("with lipstick", "wearing lipstick", "red lipstick", "with makeup"),
    "shaved": ("clean-shaven", "shaven"),
    "frontal": ("looking at the camera", "facing the camera", "front view"),
}
"""Label -> phrases after the person."""
_PLACES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "at the beach", "on a sunny beach", "by the sea", "beach", "at the ocean"),
    "city": ("in the city", "in a city street", "city", "in front of buildings", "in new york"),
    "city at night": ("in the city at night", "city at night", "on a street at night", "city lights"),
    "garden": ("in a garden", "in a flower garden", "garden", "among flowers", "with flowers"),
    "forest": ("in a forest", "in the woods", "forest", "among trees"),
    "jungle": ("in the jungle", "in a jungle", "jungle", "among large leaves", "in a dense green jungle"),
    "snow": ("in the snow", "in a snowy landscape", "snow", "in winter", "outdoors in snow"),
    "mountains": ("in the mountains", "before snowy mountains", "mountains", "hiking in the mountains"),
    "desert": ("in the desert", "in a sandy desert", "desert", "among dunes"),
    "mars": ("on mars", "on the planet mars", "on the surface of mars", "mars", "in a red desert on mars"),
    "space": ("in space", "in outer space", "space", "among stars and planets"),
    "office": ("in an office", "at the office", "office", "at work in an office", "business portrait in an office"),
    "library": ("in a library", "before bookshelves", "library", "with books"),
    "studio": ("in a studio", "studio", "studio portrait", "before a grey backdrop", "studio lighting"),
    "sunset": ("at sunset", "sunset", "before a sunset", "in the evening sun"),
    "brick wall": ("before a brick wall", "by a brick wall", "brick wall", "against a brick wall"),
    "neon signs": ("with neon signs", "before neon signs", "neon signs", "in a night club"),
    "plain wall": (),
}
"""Scene -> where the person is."""
_LOOKS: dict[str, tuple[str, ...]] = {
    "film noir": ("monochrome", "high contrast", "dramatic shadows", "1940s style", "shadow of blinds"),
    "black and white": ("monochrome", "fine grain", "rich greys", "greyscale"),
    "sepia": ("warm brown tones", "aged print", "old photograph", "brown"),
    "vintage photo": ("faded colors", "light leaks", "film grain", "retro", "polaroid"),
    "pencil sketch": ("graphite on white paper", "hatching", "loose strokes", "hand drawn", "pencil drawing"),
    "charcoal drawing": ("rough dark strokes", "smudged shadows", "textured paper", "charcoal"),
    "line art": ("clean black lines", "white paper", "no shading", "minimal", "outline drawing"),
    "blueprint": ("white lines on blue paper", "technical drawing", "precise", "blue"),
    "watercolor painting": ("painterly", "wet paint", "paper", "watercolour", "soft washes"),
    "oil painting": ("visible brush strokes", "thick paint on canvas", "rich colors", "classical"),
    "pastel": ("soft pale colors", "chalk texture", "chalk", "pale"),
    "pop art": ("flat bright colors", "bold outlines", "halftone dots", "graphic poster"),
    "pixel art": ("large square pixels", "few colors", "retro game", "8 bit"),
    "comic": ("inked outlines", "cel shading", "flat colors", "comic book", "halftone dots"),
    "anime": ("anime drawing", "cartoon", "manga", "drawn", "cel shading"),
    "neon": ("neon light in pink and cyan", "glowing signs", "night", "dark surroundings"),
    "cyberpunk": ("futuristic city at night", "magenta and teal light", "rain", "future"),
    "vibrant colors": ("bright saturated colors", "bold contrast", "colorful", "lively"),
    "golden hour": ("low warm sun", "glowing rim light", "outdoors", "evening sun", "sunlight"),
    "snow": ("falling snow", "white winter landscape", "snowflakes", "cold soft light"),
    "jungle": ("dense green jungle", "large leaves", "lush plants", "green"),
    "mars": ("on the surface of mars", "red desert", "dust and rocks", "hazy orange sky"),
    "low key": ("dark background", "one soft lamp from the side", "deep shadows", "dark"),
    "studio portrait": ("plain background", "large soft light", "grey backdrop", "studio"),
}
"""Style -> more words for what it shows; in the terms of the style presets."""
_OPENINGS = (
    "{style} of {who}",
    "{who}, {style}",
    "{style} style, {kind} of {who}",
    "{style}, {kind} of {who}",
    "{kind} of {who}, {style} style",
    "{style} style, {who}",
)
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
    "orange": (230, 130, 40),
    "purple": (120, 50, 150),
}
_MEASURED = (
    *("dark lighting", "bright lighting", "warm light", "cold light", "plain background", "blurred background"),
    *(f"{colour} background" for colour in _COLOURS),
)
_MONOCHROME = ("black and white", "black and white photo", "monochrome")
_COLOURLESS = frozenset(
    {
        *("film noir", "black and white", "sepia", "pencil sketch", "charcoal drawing", "line art", "blueprint"),
        *("pop art", "neon"),
    }
)
"""Styles that hide what colour hair or lips have."""


@dataclass(frozen=True)
class Person:
    """What may be said of the person of one photograph.

    Attributes:
        sex: man or woman.
        age: Age group of the labels.
        traits: Labels that surely hold: keys of the phrases above.
        monochrome: The photograph has no colour.
    """

    sex: str
    age: str
    traits: tuple[str, ...] = ()
    monochrome: bool = False


def person(sex: str, age: str, labels: Labels, row: int) -> Person:
    """The person of one photograph: `row` of the labels."""
    says = {word: int(answers[row]) for word, answers in labels.words.items()}
    traits = [word for word in _AFTER if says.get(word) == 1]
    if "laugh" in traits:
        traits.remove("smile")
    if "beard" in traits and "moustache" in traits:
        traits.remove("moustache")
    if "sad" in traits and "serious" in traits:
        traits.remove("serious")
    if sex == "man" and says["beard"] == 0 and says["moustache"] == 0:
        traits.append("shaved")
    monochrome = says["black and white"] == 1
    if monochrome:
        traits = [word for word in traits if word not in ("lipstick", "brown", "blond")]
    return Person(sex, age, tuple(traits), monochrome)


def caption(
    who: Person,
    style: str | None,
    scene: str | None,
    draw: np.random.Generator,
    picture: np.ndarray | None = None,
    ground: np.ndarray | None = None,
) -> str:
    """One caption of a training picture.

    Args:
        who: What may be said of the person; several of it is left out at random.
        style: A rendered style's word, or None for a photograph.
        scene: A scene's word where one stands behind the person, else None; styles with a ground of their own hide it.
        draw: Random source of the phrasing.
        picture: `(h, w, 3)` uint8 RGB of a photograph, measured for words of light and background.
        ground: `(h, w, 1)` in 0..1, 1 on the background.
    """
    if style is not None and style not in KEEPS_THE_GROUND:
        scene = None
    said = [
        trait for trait in who.traits if not (style in _COLOURLESS and trait in ("blond", "brown", "lipstick", "dark"))
    ]
    # Looks at the camera and shaven chins are too common to be said often.
    chosen = [trait for trait in said if draw.random() < (0.15 if trait in ("frontal", "shaved") else 0.65)]
    chosen = [chosen[index] for index in draw.permutation(len(chosen))][:3]
    before = [trait for trait in chosen if trait in _BEFORE and draw.random() < 0.35][:1]
    noun = _pick(_WHO[who.sex if draw.random() < 0.75 else ""], draw)
    age = _pick(_AGES[who.age], draw) if draw.random() < 0.55 else ""
    words = [_pick(_BEFORE[trait], draw) for trait in before]
    subject = " ".join(word for word in (age, *words, noun) if word)
    subject = f"an {subject}" if subject[0] in "aeio" else f"a {subject}"
    clauses = [_pick(_AFTER[trait], draw) for trait in chosen if trait not in before]
    if clauses and clauses[0].split()[0] in ("with", "wearing", "in", "looking", "facing", "smiling", "laughing"):
        subject += f" {clauses.pop(0)}"
    if scene is not None and _PLACES[scene] and draw.random() < 0.92:
        place = _pick(_PLACES[scene], draw)
        if place.split()[0] in ("on", "in", "at", "by", "before", "among") and draw.random() < 0.6:
            subject += f" {place}"
        else:
            clauses.append(place)
    clauses = [clauses[index] for index in draw.permutation(len(clauses))]
    kind = _kind(who, style, scene, draw)
    if style is not None:
        clauses += [look for look in _LOOKS[style] if draw.random() < 0.22]
        opening = _pick(_OPENINGS, draw).format(style=style, who=subject, kind=kind)
        if style.endswith(("photo", "portrait", "painting", "drawing", "sketch")):
            opening = opening.replace(f"{style} style", style) if draw.random() < 0.5 else opening
    else:
        if who.monochrome and draw.random() < 0.85:
            clauses.append(_pick(_MONOCHROME, draw))
        opening = f"a {kind} of {subject}" if draw.random() < 0.8 else subject
        if picture is not None and ground is not None:
            found = [words for words in measured(picture, ground) if not (who.monochrome and "light" not in words)]
            clauses += [words for words in found if draw.random() < 0.35]
    text = ", ".join((opening, *clauses)).replace("a id ", "an id ").replace("a image", "an image")
    return text if draw.random() < 0.85 else text.removeprefix("a ")


def vocabulary(captions: Iterable[str]) -> list[str]:
    """All words of captions, lower case, in the order of the alphabet."""
    return sorted({word for text in captions for word in re.findall(r"[^\W\d][\w'-]*", text.lower())})


def planned_words() -> list[str]:
    """All words that any caption can hold: a tokenizer and a list of known words must have them."""
    return vocabulary(_phrases())


def _phrases() -> Iterator[str]:
    yield from (*_KINDS, *_PASSPORT, *_MONOCHROME, *_MEASURED, *_OPENINGS, "a an of style")
    for table in (_AGES, _WHO, _BEFORE, _AFTER, _PLACES, _LOOKS):
        for phrases in table.values():
            yield from phrases
    yield from (*RENDERERS, *SCENES)


def _kind(who: Person, style: str | None, scene: str | None, draw: np.random.Generator) -> str:
    plain = scene in ("plain wall", "studio") and not {"smile", "laugh", "hat", "sunglasses"} & set(who.traits)
    if style is None and plain and "frontal" in who.traits and draw.random() < 0.75:
        return _pick(_PASSPORT, draw)
    return _pick(_KINDS, draw)


def measured(picture: np.ndarray, ground: np.ndarray) -> list[str]:
    """Words for what is measurable: light on the person, and the background's colour where there is enough of it."""
    words = []
    person_pixels = picture[ground[..., 0] < 0.2]
    if len(person_pixels) > 200:
        red, green, blue = person_pixels.astype(np.float32).mean(0)
        light = 0.3 * red + 0.59 * green + 0.11 * blue
        if light < 65:
            words.append("dark lighting")
        elif light > 175:
            words.append("bright lighting")
        if red - blue > 85:
            words.append("warm light")
        elif red - blue < 2:
            words.append("cold light")
    behind = picture[ground[..., 0] > 0.8].astype(np.float32)
    if len(behind) > 0.03 * ground.size:
        mean = behind.mean(0)
        name, distance = min(
            ((name, float(np.abs(mean - colour).mean())) for name, colour in _COLOURS.items()), key=lambda pair: pair[1]
        )
        even = behind.std(0).mean() < 28
        if distance < 32 and even:
            words.append(f"{name} background")
        words.append("plain background" if even else "blurred background")
    return words


def _pick(options: tuple[str, ...], draw: np.random.Generator) -> str:
    return options[int(draw.integers(len(options)))]


_LEADING = re.compile(r"^(?:(?:with|wearing|in|on|at|by|before|among|against|looking|the|a|an|front of) )+")


def phrases_of(label: str) -> set[str]:
    """How captions say a label, without the small words before it."""
    return {_LEADING.sub("", phrase) for phrase in (*_BEFORE.get(label, ()), *_AFTER[label])}


def phrases_of_places() -> set[str]:
    """How captions say what is behind a person."""
    told = {_LEADING.sub("", phrase) for phrases in _PLACES.values() for phrase in phrases}
    return told | {word for word in _MEASURED if word.endswith("background")}
