"""The page behind a reverse proxy at /lc/: every endpoint, upload, download, stream and guard as at /."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from tests.ui.proxies import Proxy, proxied
from tests.ui.served import Served, served
from tests.ui.test_links import picture
from ui.web.assets import FOR_GOOD

PATH = "/lc"
ME = "a token of my own"
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 3, "seed": 7}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("proxied"), root_path=PATH) as one:
        yield one


@pytest.fixture(scope="module")
def proxy(site: Served) -> Iterator[Proxy]:
    with proxied(site.url, PATH) as one:
        yield one
        assert [path for path in one.strays if path != "/manifest.json"] == []  # Gradio's, absolute


@pytest.fixture(scope="module")
def client(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    downloads = tmp_path_factory.mktemp("downloads")
    one = Client(
        f"{proxy.url}{PATH}/",
        verbose=False, download_files=str(downloads), analytics_enabled=False, ssl_verify=False,
    )  # fmt: skip
    yield one
    one.close()


@pytest.fixture
def visitor() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60, trust_env=False) as one:
        yield one


def test_the_page_and_all_it_loads_are_below_the_path(proxy: Proxy, visitor: httpx.Client) -> None:
    page = visitor.get(f"{proxy.url}{PATH}/")
    assert page.status_code == 200
    links = set(re.findall(r'(?:src|href)="(/[^"]*|\./[^"]*)"', page.text)) - {"/manifest.json"}
    assert len(links) >= 3
    assert [link for link in links if link.startswith("/") and not link.startswith(f"{PATH}/")] == []
    for link in links:
        if link.endswith((".js", ".css")):
            url = f"{proxy.url}{link}" if link.startswith("/") else f"{proxy.url}{PATH}/{link[2:]}"
            answer = visitor.get(url)
            assert answer.status_code == 200, link
            if "/assets/" in link:
                assert answer.headers["cache-control"] == FOR_GOOD
    config = visitor.get(f"{proxy.url}{PATH}/config").json()
    assert config["root"] == f"{proxy.url}{PATH}"
    assert f'"url":"{PATH}/gradio_api/openapi.json"' in page.text.replace(" ", "")
    assert visitor.get(f"{proxy.url}{PATH}/gradio_api/openapi.json").status_code == 200


def test_every_endpoint_with_its_streams_uploads_and_downloads(client: Client, tmp_path: Path) -> None:
    for name in ("samplers", "schedules", "models"):
        assert client.predict(api_name=f"/{name}"), name
    job = client.submit("a red circle", **SMALL, owner=ME, api_name="/txt2img")
    made = job.result(60)
    assert len(job.outputs()) > 3  # the steps, as they were made
    assert client.predict("a red circle", api_name="/tokens")["used"] > 0
    data = Path(made["images"][0]).read_bytes()
    assert b"a red circle" in data
    for odd in ("写真 №1.png", "a#b%20c&d.png"):
        (tmp_path / odd).write_bytes(picture("PNG"))
        image = handle_file(str(tmp_path / odd))
        found = client.predict(image=image, prompt="x", **SMALL, api_name="/img2img")
        assert Path(found["images"][0]).read_bytes().startswith(b"\x89PNG")
    Image.new("L", (64, 48), 255).save(tmp_path / "mask.png")
    mask = handle_file(str(tmp_path / "mask.png"))
    assert client.predict(image, mask, "a house", 1.0, 0, steps=2, api_name="/inpaint")["images"]
    assert client.predict(handle_file(made["images"][0]), api_name="/recipe")
    assert made["run"] in [run["run"] for run in client.predict("red", ME, api_name="/history")]
    assert client.predict(made["run"], ME, api_name="/run")["run"] == made["run"]
    [again] = client.predict(made["run"], ME, api_name="/pictures")
    assert Path(again).read_bytes() == data
    long = client.submit("a hill", **{**SMALL, "steps": 100}, owner=ME, api_name="/txt2img")
    for _ in range(300):
        if long.outputs():
            break
        time.sleep(0.05)
    assert client.predict(long.outputs()[0]["job"], ME, api_name="/cancel") == "stopped"


def bases(site: Served, proxy: Proxy) -> list[str]:
    """Every way to the API: through the proxy, and past it, with and without the path."""
    return [f"{proxy.url}{PATH}", site.url, f"{site.url}{PATH}", f"{site.url}/"]


def test_uploads_are_checked_at_every_path(site: Served, proxy: Proxy, visitor: httpx.Client) -> None:
    taken = []
    for base in bases(site, proxy):
        url = f"{base}/gradio_api/upload"
        bad = visitor.post(url, files={"files": ("evil.png", b"MZ not a picture")})
        assert bad.status_code >= 400, url
        good = visitor.post(url, files={"files": ("good.png", picture("PNG"))})
        taken += [url] if good.status_code == 200 else []
    assert len(taken) >= 3
    assert list(site.temporary.rglob("evil.png")) == []


def test_the_other_guards_hold_at_every_path(site: Served, proxy: Proxy, visitor: httpx.Client) -> None:
    file = {"path": "http://169.254.169.254/x", "meta": {"_type": "gradio.FileData"}}
    for base in bases(site, proxy):
        api = f"{base}/gradio_api"
        assert visitor.get(f"{api}/file=http://example.com/").status_code in (403, 404)
        body = {"data": ["x", file], "fn_index": 0, "session_hash": "x"}
        assert visitor.post(f"{api}/queue/join", json=body).status_code in (403, 404)
        evil = {"Origin": "https://evil.net"}
        assert visitor.post(f"{api}/queue/join", json={}, headers=evil).status_code == 403
        long = visitor.post(f"{api}/queue/join", content=b"0" * (17 * 1024**2))
        assert long.status_code in (413, 404)
    own = {"Origin": proxy.url}
    assert visitor.get(f"{proxy.url}{PATH}/config", headers=own).status_code == 200
