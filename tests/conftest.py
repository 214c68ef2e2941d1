"""Fixtures that every layer of tests shares."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference fixtures and CC0 portraits beside the repository."""
    folder = Path(os.environ.get("INSTANTID_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the shared test material is not here ({folder.name}/ beside the repository, or INSTANTID_SHARED)")
    return folder


@pytest.fixture(scope="session")
def portraits(shared: Path) -> list[Path]:
    """CC0 portraits, sorted by name."""
    return sorted((shared / "portraits").glob("*.jpg"))
