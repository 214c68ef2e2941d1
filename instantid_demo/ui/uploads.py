"""Where uploads lie: a folder of this process alone, gone with it, or at the next start where it was killed."""

import atexit
import os
import shutil
import tempfile
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
