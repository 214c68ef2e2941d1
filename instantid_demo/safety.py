"""The safety filter: words always, pictures where a classifier can be had.

Words are matched after undoing the usual disguises. Pictures: no permissively licensed classifier ships inside a
package (nudenet's wheel holds the AGPL), so Pocket, whose pictures are small faces, has the word filter alone; for
other models Falconsai/nsfw_image_detection (Apache-2.0, a ViT) is used once it is downloaded.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter

from instantid_demo.request import RequestError

Classifier = Callable[[Image.Image], float]
"""Picture -> how unsafe it is, 0..1."""
UNSAFE_FROM = 0.5
CLASSIFIER = "nsfw"
"""Name in the catalogue of models."""


@dataclass(frozen=True)
class Verdict:
    """Whether something may pass, and if not, why, in a sentence for the user."""

    allowed: bool
    reason: str = ""


# Sexual words of the page's five languages. Whole words only: Essex and Scunthorpe are harmless.
_SEXUAL = frozenset(
    re.findall(
        r"\w+",
        """
nude nudes nudity naked nsfw porn porno pornographic pornography hentai xxx topless bottomless undressed unclothed
erotic erotica explicit sex sexual sexy sexually intercourse orgasm masturbation masturbating blowjob handjob cumshot
genitals genitalia penis vagina vulva nipples nipple areola boobs tits cleavage lingerie thong fetish bdsm bondage
desnudo desnuda desnudos porno pornografia sexo sexual erotico erotica pezones tetas lenceria
nackt nackte nacktheit porno pornografie erotik erotisch sexuell brustwarzen titten unterwasche dessous
""",
    )
)
_SEXUAL_PHRASES = (
    "no clothes",
    "without clothes",
    "sin ropa",
    "ohne kleidung",
    "take off her",
    "take off his",
    "see through",
)
_SEXUAL_CJK = (
    "裸体",
    "裸照",
    "裸女",
    "全裸",
    "色情",
    "性爱",
    "做爱",
    "乳头",
    "ヌード",
    "ポルノ",
    "エロ",
    "セックス",
    "乳首",
)
_MILD = {"sex", "sexual", "sexy", "explicit", "cleavage", "lingerie", "thong", "lenceria", "dessous"}
"""Refused only for a child: for adults these words alone say too little."""
_CHILD = frozenset(
    re.findall(
        r"\w+",
        """
child children kid kids boy girl toddler baby infant minor minors teen teens teenager teenage underage preteen
schoolgirl schoolboy loli lolita shota nina nino ninos ninas menor kind kinder madchen junge
""",
    )
)
_CHILD_CJK = ("儿童", "孩子", "小孩", "幼女", "萝莉", "未成年", "子供", "幼児", "少女", "ロリ", "未成年")
_AGE = re.compile(r"\b(\d{1,2})\s*(?:-|\s)?(?:years?|yrs?|yo|y\s*o|jahre|anos)\b")
_HARMLESS = re.compile(
    r"\b(?:nude (?:lipstick|lip|colou?r|tones?|shade|makeup|heels)|naked eye|explicit (?:detail|lighting))\b"
)
_DISGUISE = str.maketrans("013457@$!|", "oieastasil")


def check_prompt(text: str, child: bool = False) -> Verdict:
    """Whether these words may be drawn; `child`: the reference face looks like a child's, so less may pass."""
    plain = _plain(text)
    words = set(re.findall(r"[a-z]+", plain)) | _joined(plain)
    cjk = unicodedata.normalize("NFKC", text)
    found = {word for word in _SEXUAL if word in words}
    found |= {phrase for phrase in _SEXUAL_PHRASES if phrase in plain}
    found |= {word for word in _SEXUAL_CJK if word in cjk}
    if not found:
        return Verdict(True)
    young = child or bool(words & _CHILD) or any(word in cjk for word in _CHILD_CJK) or _young(text)
    if young:
        return Verdict(False, "Sexual pictures of children are never made here.")
    if found <= _MILD:
        return Verdict(True)
    return Verdict(
        False, "The prompt asks for a sexual picture of a real person, which is not allowed here: change the words."
    )


def check_picture(picture: Image.Image, classifier: Classifier | None) -> Verdict:
    """Whether a made picture may be shown; without a classifier every picture passes."""
    if classifier is None or classifier(picture) < UNSAFE_FROM:
        return Verdict(True)
    return Verdict(False, "A picture was blurred because it may be sexual: change the words or the seed.")


def blur(picture: Image.Image) -> Image.Image:
    """The picture made unrecognisable."""
    tiny = picture.resize((12, 12), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)
    return tiny.filter(ImageFilter.GaussianBlur(max(picture.size) / 24))


def classifier_for(family: str, models: Path) -> Classifier | None:
    """The picture filter of a family of models: none for Pocket; otherwise the downloaded classifier.

    Raises:
        RequestError: it is not here; it is fetched when the user asks for it, and never by itself.
    """
    if family == "pocket":
        return None
    folder = models / CLASSIFIER
    if not (folder / "config.json").is_file():
        raise RequestError(
            f"The picture filter is not here: run `python -m instantid_demo download {CLASSIFIER}` once, "
            "or set INSTANTID_SAFETY=0 if you answer for the pictures."
        )
    return load_classifier(folder)


@lru_cache(maxsize=1)
def load_classifier(folder: Path) -> Classifier:
    """A two-class image classifier (labels normal and nsfw) from a folder.

    Raises:
        RequestError: it is damaged.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    try:
        processor: Any = AutoImageProcessor.from_pretrained(folder)
        network = AutoModelForImageClassification.from_pretrained(folder).eval()
    except (OSError, ValueError) as error:
        raise RequestError(
            f"The picture filter is damaged: run `python -m instantid_demo download {CLASSIFIER} --delete`, "
            "then without --delete."
        ) from error
    unsafe = next(index for index, label in network.config.id2label.items() if label.lower() == "nsfw")

    def classify(picture: Image.Image) -> float:
        with torch.inference_mode():
            logits = network(**processor(images=picture, return_tensors="pt")).logits
        return float(logits.softmax(-1)[0, unsafe])

    return classify


def _plain(text: str) -> str:
    """Lower case without accents, disguises (n4ked, n.u.d.e), brackets and weights; harmless phrases taken out."""
    text = unicodedata.normalize("NFKD", text.lower())
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    text = re.sub(r":\d+(?:\.\d+)?", " ", text)
    text = re.sub(
        r"(?<=[a-z])[013457@$!|](?=[a-z])|(?<=[a-z])[013457@$](?=[a-z]?\b)", lambda m: m[0].translate(_DISGUISE), text
    )
    text = re.sub(r"[()\[\]{}_*\"]", " ", text)
    return _HARMLESS.sub(" ", re.sub(r"\s+", " ", text))


def _joined(plain: str) -> set[str]:
    """Words in pieces: n u d e, n-u-d-e, nu.de."""
    runs = re.findall(r"\b(?:[a-z][\s.\-,]+){2,}[a-z]\b|\b[a-z]{1,3}(?:[.\-][a-z]{1,3})+\b", plain)
    return {re.sub(r"[^a-z]", "", run) for run in runs}


def _young(text: str) -> bool:
    return any(int(age) < 18 for age in _AGE.findall(text.lower()))
