"""Keeps libraries from talking on the terminal."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from instantid_demo.request import RequestError


def libraries() -> None:
    """No complaints, no progress bars: what fails is told in one sentence. Imports the libraries it quietens."""
    import diffusers
    import torch
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity(logging.CRITICAL)
        library.utils.logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    # OpenVINO traces networks whose shapes are no constants, which is meant.
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(diffusers|transformers|torch|insightface)\b.*")


def hub() -> None:
    """The hub's client says nothing of its own: what goes wrong is told in one sentence."""
    for name in ("huggingface_hub", "httpx2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def stdout() -> Iterator[TextIO]:
    """What libraries print, native code included, is kept away from the terminal; real standard output is yielded.

    `sys.stderr` stays the terminal's, for our own sentences. After a fault of the program what was kept is shown too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    real_out, real_err = os.dup(1), os.dup(2)
    before = sys.stderr
    with (
        tempfile.TemporaryFile() as noise,
        open(real_out, "w", encoding="utf-8", closefd=False) as out,
        open(real_err, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as err,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        os.dup2(noise.fileno(), 1)
        os.dup2(noise.fileno(), 2)
        sys.stderr = err
        try:
            yield out
        except (RequestError, KeyboardInterrupt, BrokenPipeError):
            raise
        except Exception:
            sys.stdout.flush()
            noise.seek(0)
            err.write(noise.read().decode("utf-8", "replace"))
            raise
        finally:
            sys.stdout.flush()
            sys.stderr = before
            os.dup2(real_out, 1)
            os.dup2(real_err, 2)
    os.close(real_out)
    os.close(real_err)


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
