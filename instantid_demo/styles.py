"""Style presets: words around the prompt that give a picture its look.

A preset is one JSON file with `name`, `prompt` (holding `{prompt}` once), `negative` and perhaps `short`: the look in
a word or two, for models that know few words (the name, where it is missing). Files of the user's own
folder add to and replace the built-in ones. The built-in default is no style.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT

PLACEHOLDER = "{prompt}"
_NO_STYLE_NAMES = frozenset({"", "none", "no style", "(no style)"})


@dataclass(frozen=True)
class Style:
    """A look: `prompt` with the placeholder `{prompt}`, and what to avoid."""

    name: str
    prompt: str
    negative: str = ""
    short: str = ""

    @property
    def key(self) -> str:
        """The name as requests and files have it: lower case, blanks between words."""
        return key_of(self.name)


NO_STYLE = Style("None", PLACEHOLDER)


def key_of(name: str) -> str:
    """One spelling for "Film Noir", "film-noir" and "film_noir"; every name of "no style" is `none`."""
    plain = " ".join(name.lower().replace("-", " ").replace("_", " ").split())
    return "none" if plain in _NO_STYLE_NAMES else plain


def load(folders: Iterable[Path] = (ROOT / "style_presets",)) -> Mapping[str, Style]:
    """All styles by key, sorted by name with "none" first; in equal names the later folder wins.

    Raises:
        RequestError: a file is no style preset.
    """
    files = tuple(sorted(file for folder in folders if folder.is_dir() for file in folder.glob("*.json")))
    return _read_all(
        tuple((file, file.stat().st_mtime_ns) for folder in folders for file in files if file.parent == folder)
    )


@lru_cache(maxsize=8)
def _read_all(files: tuple[tuple[Path, int], ...]) -> Mapping[str, Style]:
    styles = {style.key: style for style in (_read(file) for file, _ in files)}
    return {NO_STYLE.key: NO_STYLE, **dict(sorted(styles.items()))}


def _read(file: Path) -> Style:
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        name = str(entry["name"])
        style = Style(name, str(entry["prompt"]), str(entry.get("negative", "")), str(entry.get("short", name)).lower())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RequestError(
            f'The style preset {file} cannot be read: it needs "name", "prompt" and "negative" in JSON.'
        ) from error
    if style.prompt.count(PLACEHOLDER) != 1:
        raise RequestError(f"The style preset {file} must hold {PLACEHOLDER} once in its prompt.")
    return style


def find(name: str, styles: Mapping[str, Style] | None = None) -> Style:
    """The style of a name.

    Raises:
        RequestError: no preset has that name; the message lists those there are.
    """
    styles = load() if styles is None else styles
    try:
        return styles[key_of(name)]
    except KeyError:
        raise RequestError(f"There is no style “{name}”. There are: {', '.join(styles)}.") from None


def apply(style: str, prompt: str, negative: str = "", styles: Mapping[str, Style] | None = None) -> tuple[str, str]:
    """Prompt and negative prompt in a style, joined just as the original application joins them.

    The style's negative words come first, then one blank, then the user's, also where one of them is empty.
    """
    chosen = find(style, styles)
    return chosen.prompt.replace(PLACEHOLDER, prompt), f"{chosen.negative} {negative}"
