"""How a model or an add-on is called in public: by its name, never by the path that leads to it on someone's disk."""

import contextlib
import re
from pathlib import Path
from typing import Any

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".onnx", ".gguf", ".npy")
_PATH = re.compile(r"^[/~.]|^[A-Za-z]:|\\|//|/\.\.?(/|$)|\0")


def is_path(text: str) -> bool:
    """Whether a text leads to a file or folder, by its form or because one is there.

    `owner/name` and `owner/name/file` are hub ids where nothing of that name is here.
    """
    if _PATH.search(text) or (text.lower().endswith(_WEIGHTS) and text.count("/") < 2):
        return True
    if "/" in text:
        with contextlib.suppress(OSError, ValueError):
            return Path(text).exists()
    return False


def public_name(text: str) -> str:
    """The last part of a path without the ending of a weights file; what is no path stays as it is."""
    if not is_path(text):
        return text
    name = re.split(r"[/\\]", text.rstrip("/\\"))[-1].replace("\0", "")
    stem, dot, ending = name.rpartition(".")
    return stem if f"{dot}{ending}".lower() in _WEIGHTS and stem else name


def without_paths(value: Any) -> Any:
    """JSON-like data with every path in it shortened to its public name."""
    if isinstance(value, str):
        return public_name(value)
    if isinstance(value, dict):
        return {name: without_paths(part) for name, part in value.items()}
    return [without_paths(part) for part in value] if isinstance(value, (list, tuple)) else value


def holds_path(value: Any) -> bool:
    """Whether a path stands anywhere in JSON-like data."""
    if isinstance(value, str):
        return is_path(value)
    if isinstance(value, dict):
        return any(map(holds_path, value.values()))
    return any(map(holds_path, value)) if isinstance(value, (list, tuple)) else False
