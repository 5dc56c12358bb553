"""The real server over HTTP: nobody gets a file that was not given to them, nor in without a password."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.ui.served import ROOT, Served, served
from tests.ui.test_links import bomb, picture
from ui.web.assets import FOR_GOOD

SECRET = "a secret of the outputs"


def a_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a server runs: with outputs, a model, settings and a hidden file in it."""
    folder = tmp_path_factory.mktemp("served")
    files = {
        "latentcanvas.toml": f"[page]\nauth_file = 'people'\n# {SECRET}\n",
        "people": "ann:one\n",
        "outputs/000001.png": SECRET,
        "outputs/history.sqlite": SECRET,
        "outputs/000001.steps.safetensors": SECRET,
        "data/models/mine.safetensors": SECRET,
        ".env": SECRET,
        ".git/config": SECRET,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page that asks nobody, for this machine alone."""
    folder = a_folder(tmp_path_factory)
    (folder / "latentcanvas.toml").write_text(f"# {SECRET}\n[guests]\nupload_mb = 2\n")
    with served(folder) as site:
        yield site


@pytest.fixture(scope="module")
def closed_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page on the network that asks for a password, by its settings file."""
    with served(a_folder(tmp_path_factory), listen=True) as site:
        yield site


@pytest.fixture
def visitor(open_site: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=open_site.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def stranger(closed_site: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=closed_site.url, timeout=60, trust_env=False) as client:
        yield client


def log_in(client: httpx.Client, user: str, password: str) -> int:
    return client.post("/login", data={"username": user, "password": password}).status_code


def hidden_files(site: Served) -> list[str]:
    """Names of files that nobody may have, in all the ways to write them."""
    there = [str(path) for path in sorted(site.folder.rglob("*")) if path.is_file()]
    ours = [
        str(ROOT / name)
        for name in ("launcher.py", "ui/app.py", "data/tiny/model_index.json", "pyproject.toml")
    ]
    relative = [
        "latentcanvas.toml",
        "outputs/000001.png",
        "./outputs/000001.png",
        ".env",
        ".git/config",
        "people",
    ]
    tricks = [
        f"{site.temporary}/../../{site.folder.name}/latentcanvas.toml",
        "outputs/../latentcanvas.toml",
        "../../../../../../../../etc/passwd",
        "/etc/passwd",
        "/proc/self/environ",
        f"file://{site.folder}/latentcanvas.toml",
        f"{site.folder}/OUTPUTS/000001.png",
    ]
    return [*there, *ours, *relative, *tricks]


def ask_for_files(client: httpx.Client, site: Served, status: int) -> None:
    for name in hidden_files(site):
        for written in {quote(name), quote(name, safe=""), name.replace("..", "%2e%2e"), quote(quote(name))}:
            for route in (f"/gradio_api/file={written}", f"/gradio_api/file/{written}", f"/file={written}"):
                answer = client.get(route)
                assert answer.status_code in (status, 404), (route, answer.status_code)
                assert SECRET not in answer.text
                assert "root:" not in answer.text
    for route in ("/static/", "/assets/", "/svelte/", "/gradio_api/"):
        answer = client.get(f"{route}../../../../../../..{quote(str(site.folder))}/latentcanvas.toml")
        assert SECRET not in answer.text


def test_there_are_such_files(open_site: Served) -> None:
    assert SECRET in (open_site.folder / "outputs/000001.png").read_text()
    assert (ROOT / "launcher.py").exists()
    assert len(hidden_files(open_site)) > 20


def test_no_file_is_served_that_was_not_given(open_site: Served, visitor: httpx.Client) -> None:
    assert visitor.get("/").status_code == 200
    ask_for_files(visitor, open_site, 403)


def test_nor_to_who_logged_in(closed_site: Served, stranger: httpx.Client) -> None:
    assert log_in(stranger, "ann", "one") == 200
    assert stranger.get("/config").status_code == 200
    ask_for_files(stranger, closed_site, 403)


def test_a_stranger_gets_nothing(closed_site: Served, stranger: httpx.Client) -> None:
    ask_for_files(stranger, closed_site, 401)
    for route in ("/config", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/queue/status"):
        assert stranger.get(route).status_code == 401, route
    png = {"files": ("a.png", picture("PNG"))}
    assert stranger.post("/gradio_api/upload", files=png).status_code == 401
    for route in ("/gradio_api/queue/join", "/gradio_api/run/samplers", "/gradio_api/call/samplers"):
        assert stranger.post(route, json={"data": [], "session_hash": "x", "fn_index": 0}).status_code == 401
    assert stranger.get("/monitoring").status_code in (401, 403, 404)
    assert '"components":[{' not in stranger.get("/").text
    assert list(closed_site.temporary.rglob("*.png")) == []


def test_only_the_right_password_opens(stranger: httpx.Client) -> None:
    for user, password in (("ann", "two"), ("bob", "one"), ("ann", ""), ("", "")):
        assert log_in(stranger, user, password) in (400, 422)
        assert stranger.get("/config").status_code == 401
    stranger.cookies.set("access-token", "made-up")
    assert stranger.get("/config").status_code == 401
    assert log_in(stranger, "ann", "one") == 200
    assert stranger.get("/config").status_code == 200


def test_scripts_are_kept_for_good_and_compressed_for_others_alone(
    visitor: httpx.Client, stranger: httpx.Client
) -> None:
    found = re.search(r"assets/[\w.-]+\.js", visitor.get("/").text)
    assert found is not None
    path, compressed = f"/{found[0]}", {"Accept-Encoding": "br"}
    here = visitor.get(path, headers=compressed)
    there = stranger.get(path, headers={**compressed, "Host": "pictures.example"})
    assert [answer.headers["Content-Encoding"] for answer in (here, there)] == ["identity", "br"]
    assert there.num_bytes_downloaded < here.num_bytes_downloaded
    assert here.content == there.content
    assert {answer.headers["Cache-Control"] for answer in (here, there)} == {FOR_GOOD}
    assert "Cache-Control" not in visitor.get("/assets/nothing.js").headers


def test_what_the_terminal_says_of_it(open_site: Served, closed_site: Served) -> None:
    assert "Warning" not in open_site.said
    assert "Warning" not in closed_site.said
    assert "on the network" in closed_site.said


# What comes in.


def test_a_picture_is_taken_and_given_back_byte_for_byte(open_site: Served, visitor: httpx.Client) -> None:
    data = picture("PNG")
    answer = visitor.post("/gradio_api/upload", files={"files": ("a.png", data)})
    assert answer.status_code == 200
    [path] = answer.json()
    assert Path(path).is_relative_to(open_site.temporary)
    assert visitor.get(f"/gradio_api/file={path}").content == data


@pytest.mark.parametrize(
    ("name", "data", "status", "words"),
    [
        ("bomb.png", bomb(60_000, 60_000), 422, "make it smaller"),
        ("half.png", picture("PNG")[:200], 422, "incomplete"),
        ("no.png", b"\x7fELF" + bytes(64), 422, "not an image"),
        ("large.bmp", picture("BMP", (1000, 1000)), 413, "maximum allowed size"),
    ],
)
def test_what_would_do_harm_is_refused_and_gone(
    open_site: Served, visitor: httpx.Client, name: str, data: bytes, status: int, words: str
) -> None:
    answer = visitor.post("/gradio_api/upload", files={"files": (name, data)})
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (status, "text/plain")
    assert words in answer.text
    assert "\n" not in answer.text
    assert list(open_site.temporary.rglob(name)) == []


def test_too_much_at_once_is_refused_before_it_is_read(visitor: httpx.Client) -> None:
    files = [("files", (f"{i}.bmp", picture("BMP", (700, 700)))) for i in range(8)]
    assert visitor.post("/gradio_api/upload", files=files).status_code == 413
    long = json.dumps({"data": ["x" * (17 * 1024**2)]}).encode()
    headers = {"content-type": "application/json"}
    answer = visitor.post("/gradio_api/queue/join", content=long, headers=headers)
    assert answer.status_code == 413

    def in_parts() -> Iterator[bytes]:  # without its length being said before
        for start in range(0, len(long), 65536):
            yield long[start : start + 65536]

    try:
        status = visitor.post("/gradio_api/queue/join", content=in_parts(), headers=headers).status_code
    except httpx.WriteError:  # it hangs up on who goes on
        status = 413
    assert status == 413


def test_the_server_fetches_nothing_for_others(visitor: httpx.Client) -> None:
    for address in ("http://127.0.0.1:1/x", "https://example.com/x.png", "HTTP://example.com"):
        assert visitor.get(f"/gradio_api/file={address}").status_code == 403
        assert visitor.get(f"/gradio_api/proxy={address}").status_code in (403, 404)
        file = {"path": address, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [{"background": file, "layers": []}], "fn_index": 0, "session_hash": "x"}
        answer = visitor.post("/gradio_api/queue/join", json=body)
        assert (answer.status_code, "fetches no files" in answer.text) == (403, True)


# Who asks.


def test_pages_of_other_sites_get_nothing(visitor: httpx.Client, open_site: Served) -> None:
    assert visitor.get("/config", headers={"origin": open_site.url}).status_code == 200
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example"):
        for answer in (
            visitor.get("/config", headers={"origin": origin}),
            visitor.post("/gradio_api/queue/join", json={}, headers={"origin": origin}),
            visitor.options("/config", headers={"origin": origin, "access-control-request-method": "GET"}),
        ):
            assert "access-control-allow-origin" not in answer.headers
            assert answer.status_code == (200 if answer.request.method == "OPTIONS" else 403)


def test_another_name_for_this_machine_gets_nothing(visitor: httpx.Client, stranger: httpx.Client) -> None:
    """What a page of someone else does whose name is made to lead here."""
    headers = {"host": "evil.example"}
    assert visitor.get("/config", headers=headers).status_code == 403
    assert log_in(stranger, "ann", "one") == 200
    assert stranger.get("/config", headers=headers).status_code == 200  # on the network it has many names
    foreign = {**headers, "origin": "https://other.example"}
    answer = stranger.get("/config", headers=foreign)
    assert answer.status_code == 403


def test_nothing_of_all_this_was_a_surprise(open_site: Served, closed_site: Served) -> None:
    """The last test here: no refusal above left a traceback in the server's log."""
    for site in (open_site, closed_site):
        assert "Traceback" not in site.log.read_text(), site.log.read_text()
