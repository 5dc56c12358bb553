"""The real page in a real browser: a server of our own, Chromium, a guard over what a page says and loads.

The page runs on the embedded model where it is there, else on the tests' fake. Screenshots go to the folder
that LATENTCANVAS_SCREENSHOTS names, else to a temporary one; LATENTCANVAS_UPDATE_SCREENSHOTS=1 also renews
the picture of the page in docs/images.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser tests")

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "data" / "tiny" / "unet" / "diffusion_pytorch_model.safetensors"
PATIENCE = 120_000  # milliseconds: for machines that are busy with something else
# What Playwright turns off by itself, as only the last of such flags counts, and the hidden window for what
# the address bar would suggest: a fifth of the work of opening our page.
OFF = (
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding",
    "ThirdPartyStoragePartitioning", "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled",
    "PreconnectToSearch", "WebUIOmniboxPopup", "WebUIOmniboxAimPopup",
)  # fmt: skip
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--disable-features={','.join(OFF)}",
]
COMMAND = [sys.executable, "-c", "import sys; from ui.cli import main; sys.exit(main())"]


@dataclass(frozen=True)
class Site:
    """A served page, and the process that serves it."""

    url: str
    outputs: Path
    pid: int = 0


@pytest.fixture(scope="module")  # playwright's event loop must not outlive the tests that need it
def chromium() -> Iterator[Any]:
    """The installed Chromium. Without one the tests are skipped, and on a build server they fail."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        reason = "NO BROWSER TESTS: no chromium is installed, so the page was not driven"
        if os.environ.get("CI"):
            pytest.fail(reason)
        warnings.filterwarnings("default", message=reason)
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page, served by a process of its own as the command serves it."""
    with serving(tmp_path_factory.mktemp("outputs"), tmp_path_factory.mktemp("config")) as site:
        yield site


@contextmanager
def serving(outputs: Path, config: Path, *, fake: bool = not EMBEDDED.exists()) -> Generator[Site]:
    """The page over these outputs, with its own settings. fake: with the tests' small model."""
    port = free_port()
    if not fake:
        command = [*COMMAND, "--port", port, "--outputs", str(outputs)]
    else:
        command = [sys.executable, "-m", "tests.browser.serve_fake", port, str(outputs)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "LATENTCANVAS_CONFIG": str(config)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield Site(address(server), outputs, server.pid)
        finally:
            server.terminate()


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def address(server: subprocess.Popen[str]) -> str:
    """Read what a server says until it names its address; then keep reading, so that it never blocks."""
    assert server.stdout is not None
    said = []
    for line in server.stdout:
        said.append(line)
        if "LatentCanvas is at" in line:
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return next(word for word in line.split() if word.startswith("http")).rstrip(",")
    pytest.fail("the page did not start:\n" + "".join(said))


@pytest.fixture(scope="module")
def ready() -> str:
    """What is on the page once it can be used: here, that the model is loaded."""
    return "#examples .lc-chips button"


class Windows:
    """Windows that are closed together, and the troubles of their pages: errors that they say on their
    console, and what they ask other servers for.
    """

    def __init__(self, chromium: Any) -> None:
        self.chromium = chromium
        self.contexts: list[Any] = []
        self.troubles: list[str] = []

    def open(self, url: str, **options: Any) -> Any:
        """A page in a window of its own; options are those of a Playwright context."""
        window = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light", **options}
        context = self.chromium.new_context(**window)
        self.contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        hear(page, self.troubles)
        page.on("request", lambda request: self.troubles.extend(filter(_is_foreign, [request.url])))
        page.goto(url)
        return page

    def close(self) -> None:
        """Close them. Fails when there was trouble, of which closing brings the last."""
        while self.contexts:
            self.contexts.pop().close()
        troubles, self.troubles = self.troubles, []
        assert troubles == []


Opening = Callable[[Windows], Any]


@pytest.fixture
def windows(chromium: Any) -> Iterator[Windows]:
    """Windows of one test. Fails the test when one of its pages has trouble."""
    windows = Windows(chromium)
    yield windows
    windows.close()


@pytest.fixture
def open_page(windows: Windows, site: Site, ready: str) -> Callable[..., Any]:
    """Open a page; `at` is what follows the address."""

    def open_one(at: str = "", **options: Any) -> Any:
        page = windows.open(site.url + at, **options)
        page.locator(ready).first.wait_for(state="attached")
        return page

    return open_one


@pytest.fixture(scope="module")
def opening(site: Site, ready: str) -> Opening:
    """How the page that the tests of a file share is opened."""

    def open_one(windows: Windows) -> Any:
        page = windows.open(site.url)
        page.locator(ready).first.wait_for(state="attached")
        return page

    return open_one


@pytest.fixture(scope="module")
def shared(chromium: Any, opening: Opening) -> Iterator[tuple[Windows, Opening]]:
    """The window of the page that the tests of a file share, and how it is opened. It is closed before the
    server ends.
    """
    windows = Windows(chromium)
    yield windows, opening
    windows.close()


@pytest.fixture
def page(shared: tuple[Windows, Opening], request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page as the test before left it, as most of a page's time goes into opening it. After a test that
    fails the next one gets another. Fails the test when the page has trouble.
    """
    windows, opening = shared
    page = windows.contexts[0].pages[0] if windows.contexts else opening(windows)
    yield page
    page.evaluate("0")  # what the browser has said meanwhile is heard
    if windows.troubles or request.node.stash.get(FAILED, False):
        windows.close()


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on a test that it has failed."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


# What Gradio itself says when a page is left while it is being told something.
LEAVING = (
    "AbortError: signal is aborted",
    "AbortError: BodyStreamBuffer was aborted",
    "Unexpected error Connection errored out",
    "TypeError: network error",
    "Failed to load resource: net::ERR_INCOMPLETE_CHUNKED_ENCODING",
)
# The same, on a busy machine: changes that were on their way no longer find what they change, and another
# stream is asked for in a session that is over. Followed by another page they are none of ours.
LEFT = (
    "Unexpected client exception TypeError: Cannot set properties of undefined (setting '0')",
    "Unexpected error 404: Not Found",
)
# And its image editor of a picture that comes before it is ready, as on a busy machine: see `paint_on`.
HASTE = tuple(
    f"Cannot read properties of undefined (reading '{name}')" for name in ("reset_layers", "dimensions")
)


def hear(page: Any, troubles: list[str]) -> None:
    """Add to `troubles` the errors that a page says, but those of Gradio itself."""

    def add(words: str) -> None:
        if not words.startswith((*LEAVING, *HASTE)):
            troubles.append(words)

    def forgive(_: Any) -> None:
        troubles[:] = [words for words in troubles if not words.startswith(LEFT)]

    page.on("console", lambda said: add(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: add(str(error)))
    page.on("framenavigated", forgive)


def _is_foreign(url: str) -> bool:
    address = urlparse(url)
    return address.scheme in ("http", "https", "ws", "wss") and address.hostname != "127.0.0.1"


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this run's screenshots go."""
    named = os.environ.get("LATENTCANVAS_SCREENSHOTS")
    folder = Path(named).resolve() if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
