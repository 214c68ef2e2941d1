"""The tools as an assistant sees them over the Model Context Protocol."""

import ast
import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import serving

mcp = pytest.importorskip("mcp")
pytestmark = pytest.mark.browser
DESCRIBED = ("generate", "group", "faces", "verify", "styles")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gradio's folder for uploads."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def server(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("mcp")
    with serving(home, INSTANTID_MCP="1", GRADIO_TEMP_DIR=str(temporary)) as address:
        yield address


def asked(address: str, *calls: tuple[str, dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The server's tools by name, and its answers to `calls` as text."""
    from mcp.client.streamable_http import streamablehttp_client

    async def talk() -> tuple[dict[str, Any], list[str]]:
        async with (
            streamablehttp_client(f"{address}/gradio_api/mcp/") as (reading, writing, _),
            mcp.ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            answers = []
            for name, arguments in calls:
                answer = await session.call_tool(name, arguments)
                texts = [part.text for part in answer.content if part.type == "text"]
                assert not answer.isError, texts
                answers.append("\n".join(texts))
            return tools, answers

    # In a thread of its own: Playwright's loop runs in this one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(talk())).result()


def sent(file: Path) -> str:
    """A picture as assistants send it."""
    return "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()


def test_tools_are_described(server: str) -> None:
    tools, (found,) = asked(server, ("styles", {}))
    assert set(tools) == set(DESCRIBED)
    for tool in tools.values():
        assert len(tool.description) > 40
    assert "may use this face" in tools["generate"].description
    arguments = tools["generate"].inputSchema["properties"]
    assert all(arguments[name].get("description") for name in ("photo", "prompt", "style", "settings"))
    assert "film noir" in found


def test_an_assistant_makes_a_picture_of_a_face_it_found(server: str, temporary: Path, portraits: list[Path]) -> None:
    photo = sent(portraits[1])
    _, (faces, made) = asked(
        server, ("faces", {"picture": photo}), ("generate", {"photo": photo, "seed": 7, "quality": "draft"})
    )
    assert len(ast.literal_eval(faces)["faces"]) == 1
    assert "likeness" in made
    # The photo lies where it is wiped, nowhere else.
    assert all(entry.name.startswith("instantid-") for entry in temporary.iterdir())
