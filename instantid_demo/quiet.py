"""Keeps libraries from talking on the terminal."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


def libraries() -> None:
    """Errors only, no progress bars; imports the libraries it quietens."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(diffusers|transformers|torch|insightface)\b.*")


def hub() -> None:
    """The hub's client says nothing of its own: what goes wrong is told in one sentence."""
    for name in ("huggingface_hub", "httpx2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def stdout() -> Iterator[TextIO]:
    """Whatever anybody prints, native code included, goes to standard error; the real standard output is yielded."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    previous, sys.stdout = sys.stdout, sys.stderr
    try:
        with open(real, "w", encoding="utf-8", closefd=False) as out:
            yield out
    finally:
        sys.stdout = previous
        os.dup2(real, 1)
        os.close(real)
