"""Where uploads lie: a folder of this process alone, gone with it, or at the next start where it was killed."""

import atexit
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = "instantid-"


def own_folder() -> Path:
    """Makes this process' folder for uploads, tells Gradio of it, and wipes those of processes that are no more.

    It lies in `GRADIO_TEMP_DIR`, or else in the system's temporary folder; nobody else may read it.
    """
    base = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    folder = base / f"{_PREFIX}{os.getpid()}"
    for left in base.glob(f"{_PREFIX}*"):
        if not _runs(left.name.removeprefix(_PREFIX)) or left == folder:
            shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def sweep(folder: Path, minutes: float) -> None:
    """Deletes files that nobody touched for so long; Gradio overlooks pictures that assistants send."""
    oldest = time.time() - 60 * minutes
    for file in folder.rglob("*"):
        with suppress(OSError):  # another sweep may be faster
            if file.is_file() and file.stat().st_mtime < oldest:
                file.unlink()


def keep_swept(folder: Path, minutes: float) -> threading.Thread:
    """Sweeps now and then for as long as the program runs."""

    def work() -> None:
        while True:
            time.sleep(min(60 * minutes, 600))
            sweep(folder, minutes)

    thread = threading.Thread(target=work, name="upload-sweeper", daemon=True)
    thread.start()
    return thread


def _runs(process: str) -> bool:
    """Whether a process of this number is there; where the system cannot be asked, it is taken for granted."""
    if os.name != "posix" or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
