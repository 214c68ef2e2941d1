"""The page's scripts and style sheet, read from the files beside this one."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def script(name: str) -> str:
    """The text of a `.js` or `.css` file of this folder."""
    return (_FOLDER / name).read_text(encoding="utf-8")
