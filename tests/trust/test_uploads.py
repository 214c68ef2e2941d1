"""Uploads are wiped in time."""

import os
import time
from pathlib import Path

from instantid_demo.ui import uploads


def test_old_files_are_swept_and_fresh_ones_stay(tmp_path: Path) -> None:
    old, fresh = tmp_path / "a" / "old.jpg", tmp_path / "a" / "fresh.jpg"
    old.parent.mkdir()
    for file in (old, fresh):
        file.write_bytes(b"x")
    os.utime(old, (time.time() - 3700,) * 2)
    uploads.sweep(tmp_path, 60)
    assert not old.exists()
    assert fresh.exists()
