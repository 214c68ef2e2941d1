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


@contextmanager
def stderr() -> Iterator[None]:
    """Whatever native code of this process prints on standard error in the meantime goes nowhere."""
    try:
        real = os.dup(2)
    except OSError:  # a program without a terminal may have none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(real, 2)
        os.close(real)
        os.close(nowhere)
