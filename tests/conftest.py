"""Fixtures that every layer of tests shares."""

import os
import socket
from pathlib import Path
from typing import Any

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


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call for the network fails the test that makes it."""

    def called(*args: Any, **kwargs: Any) -> None:
        pytest.fail(f"somebody reached for the network: {args[-1:]}")

    monkeypatch.setattr(socket.socket, "connect", called)
    monkeypatch.setattr(socket, "getaddrinfo", called)
