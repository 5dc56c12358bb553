"""The page's actions for language models: a client of the protocol against the real server."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.ui.served import Served, served
from ui.api.endpoints import HELP

mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed: no tests of it")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("mcp"), mcp=True) as one:
        yield one


def talk(site: Served, name: str, **arguments: Any) -> Any:
    """The answer to one call of a tool, or the tools, if none is named."""
    http = importlib.import_module("mcp.client.streamable_http")
    connect = getattr(http, "streamable_http_client", None) or http.streamablehttp_client  # its older name

    async def inside() -> Any:
        async with (
            connect(f"{site.url}/gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await (session.call_tool(name, arguments) if name else session.list_tools())

    return asyncio.run(inside())


def test_the_terminal_says_where(site: Served) -> None:
    assert f"MCP server for language models: {site.url}/gradio_api/mcp/" in site.said


def test_every_action_is_a_tool_with_its_text(site: Served) -> None:
    tools = talk(site, "").tools
    for action in ("txt2img", "img2img", "inpaint", "samplers", "history", "recipe"):
        [tool] = [one for one in tools if one.name == action]
        assert tool.description
    [txt2img] = [one for one in tools if one.name == "txt2img"]
    assert txt2img.inputSchema["properties"]["cfg_scale"]["description"] == HELP["cfg_scale"]


def test_a_tool_answers(site: Served) -> None:
    answer = talk(site, "samplers")
    assert not answer.isError
    assert "ddim" in json.dumps([part.text for part in answer.content])


def test_a_picture_is_made(site: Served) -> None:
    answer = talk(site, "txt2img", prompt="a red circle", steps=3, width=64, height=64, seed=1)
    assert not answer.isError, answer.content
    [picture] = (site.folder / "outputs").glob("*.png")
    [address] = re.findall(r"http://[^' ]+\.png", answer.content[0].text)
    assert httpx.get(address, trust_env=False).content == picture.read_bytes()


def test_a_mistake_is_told(site: Served) -> None:
    answer = talk(site, "txt2img", prompt="x", sampler="eular")
    assert answer.isError
    assert "eular" in answer.content[0].text


def test_no_file_of_the_machine_is_opened(site: Served) -> None:
    settings = site.folder / "latentcanvas.toml"
    settings.write_text("# a secret")
    answer = talk(site, "recipe", file=str(settings))
    assert answer.isError
    assert "secret" not in answer.content[0].text


def test_other_sites_get_nothing(site: Served) -> None:
    headers = {"origin": "https://evil.example", "accept": "application/json, text/event-stream"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    answer = httpx.post(f"{site.url}/gradio_api/mcp/", json=body, headers=headers, trust_env=False)
    assert answer.status_code == 403
