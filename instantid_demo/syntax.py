"""What prompts of other tools say besides words, so that none of it is taken for words.

LoRA tags are split off. `[a:b:0.5]`, `[a|b]`, `{a|b}`, `AND`, wildcards and embeddings that are not here have no
meaning here: what becomes of them is told.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

USUAL_STEPS = 30
"""Of which the step numbers in `[a:b:12]` are taken as shares where nobody said how many there are."""
_TAG = re.compile(r"<\s*(\w+)\s*:([^<>\n]*)>")
_LORA_TAGS = ("lora", "lyco", "locon", "loha", "lokr")
_WILDCARD = re.compile(r"__[\w*-]+(?:/[\w*-]+)*__")
_CHOICE = re.compile(r"\{([^{}|]*)\|[^{}]*\}")
_REGIONAL = re.compile(r"\s*\b(ADDCOMM|ADDBASE|ADDCOL|ADDROW)\b\s*")
_AND = re.compile(r"\s*\bAND\b\s*")
_AND_WEIGHT = re.compile(r"\s*:\s*-?\d*\.?\d+\s*$")
_EMBEDDING = re.compile(r"\bembedding:\s*([^\s,:;()\[\]<>|]+)", re.IGNORECASE)
_WORD = re.compile(r"(?<![\w.-])[^\W\d][\w.-]*\w")
_FAMOUS = re.compile(
    r"easynegative\w*|bad-?handv?-?\d+|bad-hands-\d|bad_prompt\w*|badprompt\w*|bad-artist(-anime)?|bad-picture-\S+"
    r"|bad-image-v\d\S*|baddream\w*|unrealisticdream\w*|fastnegative\w*|ng_deepnegative\w*|deepnegative\w*"
    r"|verybadimagenegative\S*|unaestheticxl\w*|negativexl\w*|negative_hand\S*|boring_e621\w*|aissist\w*neg"
    r"|cyberrealistic_(negative|positive)\S*|juggernautnegative\S*|realisticvision-negative\S*|zip(2d|realism)_neg"
    r"|[a-z]\w*[_-]neg",
    re.IGNORECASE,
)
"""Embeddings that many prompts name and nobody would write as words."""
_NUMBER = re.compile(r"\s*(-?\d*\.?\d+)\s*")
_EMPTY_BRACKETS = re.compile(r"[(\[]\s*,?\s*(?::\s*[\d.]+)?\s*[)\]]")


@dataclass
class Said:
    """A prompt taken apart."""

    text: str
    """Words alone, and the embeddings that are here."""
    loras: list[tuple[str, float]] = field(default_factory=list)
    """Names and weights of LoRA tags."""
    left_out: list[str] = field(default_factory=list)
    replaced: list[tuple[str, str]] = field(default_factory=list)
    """What changes while another tool draws, and what of it was taken."""
    joined: bool = False
    """Prompts composed by AND were made one."""


def notes(texts: Sequence[Said]) -> list[str]:
    """Sentences for the user on some texts together; LoRA tags are the caller's."""
    left_out = [name for said in texts for name in said.left_out]
    replaced = [f"of {old} “{new or 'nothing'}”" for said in texts for old, new in said.replaced]
    sentences = []
    if left_out:
        sentences.append(f"Left out of the words, because there is no such thing here: {listed(left_out)}.")
    if replaced:
        sentences.append(f"Words that change while drawing are not supported: {listed(replaced)} was taken.")
    if any(said.joined for said in texts):
        sentences.append("Prompts composed by AND are not supported: they were read as one.")
    return sentences


def listed(names: Sequence[str], most: int = 6) -> str:
    """The first of some names, shortened, with commas between."""
    shown = [name if len(name) <= 60 else f"{name[:60]}…" for name in dict.fromkeys(names)]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def read(prompt: str, is_embedding: Callable[[str], bool] = lambda name: False, steps: int | None = None) -> Said:
    """A prompt taken apart; one of nothing but words comes back as it is.

    Args:
        prompt: as the user, or another tool's picture, has it.
        is_embedding: whether an embedding of this name is here.
        steps: of the request.
    """
    said = Said(prompt)
    text = _TAG.sub(lambda tag: _tag(tag, said), prompt)
    text = _unedited(text, said, steps or USUAL_STEPS)
    while (chosen := _CHOICE.sub(lambda choice: _first(choice, said), text)) != text:
        text = chosen
    text = _WILDCARD.sub(lambda found: _without(found[0], said), text)
    text = _REGIONAL.sub(lambda found: _without(found[1], said) + ", ", text)
    text = _one_prompt(text, said)
    text = _EMBEDDING.sub(lambda found: found[0] if is_embedding(found[1]) else _without(found[0], said), text)
    text = _WORD.sub(lambda found: _famous(found, text, is_embedding, said), text)
    if text != prompt:
        said.text = _tidy(text)
    return said


def _tag(tag: re.Match[str], said: Said) -> str:
    kind, (name, *rest) = tag[1].lower(), tag[2].split(":")
    if kind not in _LORA_TAGS or not name.strip():
        return _without(tag[0], said)
    weight = 1.0
    for part in reversed(rest):
        key, equals, value = part.rpartition("=")
        if (not equals or key.strip().lower() == "unet") and (number := _NUMBER.fullmatch(value)):
            weight = float(number[1])
    said.loras.append((name.strip(), weight))
    return ""


def _without(text: str, said: Said) -> str:
    said.left_out.append(text)
    return ""


def _first(choice: re.Match[str], said: Said) -> str:
    said.replaced.append((choice[0], choice[1].strip()))
    return choice[1]


def _one_prompt(text: str, said: Said) -> str:
    parts = _AND.split(text)
    # Where everything is in capitals, so is the word.
    if len(parts) < 2 or text == text.upper():
        return text
    said.joined = True
    return ", ".join(part for part in (_AND_WEIGHT.sub("", part).strip(" ,") for part in parts) if part)


def _famous(found: re.Match[str], text: str, is_embedding: Callable[[str], bool], said: Said) -> str:
    word = found[0]
    if text[: found.start()].lower().endswith("embedding:") or not _FAMOUS.fullmatch(word) or is_embedding(word):
        return word
    return _without(word, said)


def _tidy(text: str) -> str:
    """The text without the commas and brackets that have lost their words."""
    while (less := _EMPTY_BRACKETS.sub("", text)) != text:
        text = less
    text = re.sub(r"\s*,(?:\s*,)*", ",", text)
    return re.sub(r"[ \t]{2,}", " ", text).strip(" ,\t")


@dataclass
class _Bracket:
    """A `[` that is open."""

    start: int
    parts: list[str] = field(default_factory=lambda: [""])
    """Of its content, cut at colons and bars; every second one is such a mark."""
    deep: int = 0
    """Round brackets that are open in it."""

    def add(self, text: str) -> None:
        self.parts[-1] += text


def _unedited(text: str, said: Said, steps: int) -> str:
    """Without `[from:to:when]`, `[to:when]` and `[a|b]`: what is drawn for most of the steps, or the first, stays."""
    opened = [_Bracket(-1)]
    at = 0
    while at < len(text):
        sign, now = text[at], opened[-1]
        if sign == "\\":
            now.add(text[at : at + 2])
            at += 1
        elif sign == "[":
            opened.append(_Bracket(at))
        elif sign == "]" and len(opened) > 1:
            opened.pop()
            opened[-1].add(_decided(now, text[now.start : at + 1], said, steps))
        elif sign in ":|" and len(opened) > 1 and not now.deep:
            now.parts += [sign, ""]
        else:
            now.deep += {"(": 1, ")": -1 if now.deep else 0}.get(sign, 0)
            now.add(sign)
        at += 1
    while len(opened) > 1:
        unclosed = opened.pop()
        opened[-1].add("[" + "".join(unclosed.parts))
    return "".join(opened[0].parts)


def _decided(bracket: _Bracket, whole: str, said: Said, steps: int) -> str:
    words, marks = bracket.parts[::2], set(bracket.parts[1::2])
    taken = None
    if marks == {"|"}:
        taken = words[0]
    elif marks == {":"} and len(words) <= 3 and (number := _NUMBER.fullmatch(words[-1])):
        when = float(number[1])
        share = when if when < 1 or "." in number[1] else when / steps
        before = words[0] if len(words) == 3 else ""
        taken = before if share >= 0.5 else words[-2]
    if taken is None:
        return "[" + "".join(bracket.parts) + "]"
    said.replaced.append((whole, taken.strip()))
    return taken
