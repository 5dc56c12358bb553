"""Serve the page: read the settings, find a port, start the server, then load the model in the background.

Gradio is imported when the page is served and torch only in the model's thread, so commands that need neither
start quickly, and the page can be used before the model is loaded.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import io
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from core.checks import MAX_PIXELS
from core.errors import UserError
from core.files import check_writable
from core.plugins import current
from ui.service.job_queue import Jobs
from ui.service.model_thread import ModelThread, fits_beside
from ui.service.page_settings import PageConfig, SettingsStore
from ui.web.accounts import read_accounts
from ui.web.served_files import TEMPORARY

if TYPE_CHECKING:
    import gradio as gr

    from ui.service.job_queue import Jobs
    from ui.service.model_thread import PagePipeline
    from ui.web.accounts import Accounts

PORTS_TRIED = 100
PAGE_SECONDS = 3.0  # for a browser to open the page before the model is loaded


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """The page's options of the command line; None means that the settings file decides.

    `auth` is "user:password" or the name of a file, `config` a settings file in place of latentcanvas.toml.
    """

    model: str | None = None
    vae: Path | None = None
    ema: bool = False
    device: str | None = None
    dtype: str | None = None
    memory: str | None = None
    share: bool | None = None
    auth: str | None = None
    listen: bool | None = None
    port: int | None = None
    root_path: str | None = None
    outputs: Path | None = None
    shared_history: bool | None = None
    mcp: bool | None = None
    config: Path | None = None
    plugins_dir: Path | None = None
    no_plugins: bool = False

    def settings(self) -> SettingsStore:
        """The file's settings, overridden by these options. Raises UserError."""
        given: dict[str, Any] = {
            "model": self.model,
            "device": self.device,
            "dtype": self.dtype,
            "memory": self.memory,
            "share": self.share,
            "listen": self.listen,
            "port": self.port,
            "root_path": self.root_path or os.environ.get("GRADIO_ROOT_PATH") or None,
            "outputs": None if self.outputs is None else str(self.outputs),
            "shared_history": self.shared_history,
            "mcp": self.mcp,
        }
        said = {name: value for name, value in given.items() if value is not None}
        return SettingsStore(self.config, {"page": said})


def serve(options: PageOptions, load: Callable[[str], PagePipeline] | None = None) -> None:
    """Serve the page until it is interrupted. `load` replaces how the model of `options` is loaded.

    Raises UserError for an option that cannot be used.
    """
    store = options.settings()
    page_settings = store.current.page
    accounts = read_accounts(options.auth, page_settings.auth_file)
    _check_mcp(page_settings.mcp, accounts)
    check_root_path(page_settings.root_path or "")
    check_writable(Path(page_settings.outputs))
    host = "0.0.0.0" if page_settings.listen else "127.0.0.1"
    port = free_port(host, page_settings.port)
    with TemporaryDirectory(prefix="latentcanvas-page-", ignore_cleanup_errors=True) as temporary:
        if threading.current_thread() is threading.main_thread():  # SIGTERM stops it as Ctrl+C does
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        settle_gradio(temporary)
        with _no_collections():
            import_gradio()
            page, jobs = _page(options, store, load or (lambda name: _load(options, store, name)))
            if page_settings.share:  # a link takes a while, and the page is usable before
                print("Creating a share link ...", flush=True)
                _start(jobs)
            shared = _launch(page, store.current, host, port, accounts)
        for line in lines(store.current, port, shared, asks=accounts is not None):
            print(line, flush=True)
        if not page_settings.share:
            _start(jobs)
        _until_interrupted(page)


def free_port(host: str, wanted: int) -> int:
    """The wanted port, or the next free one after it. Raises UserError if there is none."""
    if not 1 <= wanted <= 65535:
        raise UserError(f"--port {wanted}: must be between 1 and 65535")
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if os.name != "nt":  # as the server does: a port just released counts as free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError as error:
                raise UserError(f"--port {port}: not permitted; choose one above 1023") from error
            except OSError:
                continue
            return port
    raise UserError(f"--port {wanted}: this port and those after it are taken; choose another")


def _check_mcp(wanted: bool, accounts: Accounts | None) -> None:
    """Raise UserError if the MCP server cannot be started."""
    if not wanted:
        return
    if find_spec("mcp") is None:
        install = f"{sys.executable} -m pip install --constraint constraints.txt mcp"
        raise UserError(f"--mcp needs the package mcp, which is not installed: run `{install}`")
    if accounts is not None:
        raise UserError("--mcp does not support passwords: leave out --mcp, or --auth and auth_file")


def check_root_path(root_path: str) -> None:
    """Raise UserError unless it is empty, a path, or a whole address, without a slash at its end."""
    if not re.fullmatch(r"(https?://[^/?#\s]+)?(/[^/?#\s]+)*", root_path):
        raise UserError(
            f"--root-path {root_path}: write a path such as /lc, or an address such as https://example.com/lc"
        )


def settle_gradio(temporary: str) -> None:
    """Set Gradio's environment before it is imported: no analytics, no proxy for this machine.

    Gradio serves any file of its temporary folder, so it gets a new folder of ours, and no other paths from
    the environment.
    """
    os.environ[TEMPORARY] = temporary
    for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_VIBE_MODE"):
        os.environ.pop(name, None)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))


@contextlib.contextmanager
def _no_collections() -> Generator[None]:
    """No garbage collection while Gradio is imported: its objects stay, and collecting takes a sixth of the
    time.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def import_gradio() -> None:
    """Import Gradio without letting it write type stubs."""
    with no_stubs():
        importlib.import_module("gradio")


@contextlib.contextmanager
def no_stubs() -> Generator[None]:
    """Inside, Gradio writes no type stubs. It writes one for each component class at every import, next to
    its own files, in two fifths of the time; it writes none for a class whose file cannot be found.
    """
    getfile = inspect.getfile

    def found(thing: Any) -> str:
        if hasattr(thing, "EVENTS"):  # a component, or their base class
            raise OSError(f"the file of {thing} is hidden")
        return getfile(thing)

    inspect.getfile = found  # pyrefly: ignore[bad-assignment]
    try:
        yield
    finally:
        inspect.getfile = getfile


@contextlib.contextmanager
def no_application() -> Generator[None]:
    """Inside, Gradio makes no web application. It makes one when Blocks are created and another when they are
    built, though only the one of `launch` is used.
    """
    from gradio.routes import App

    create = App.create_app
    App.create_app = staticmethod(lambda *_, **__: None)  # pyrefly: ignore[bad-assignment, method-assign]
    try:
        yield
    finally:
        App.create_app = staticmethod(create)  # pyrefly: ignore[method-assign]


def _page(
    options: PageOptions, store: SettingsStore, load: Callable[[str], PagePipeline]
) -> tuple[gr.Blocks, Jobs]:
    from ui.api.api import Api
    from ui.page.layout import build_page
    from ui.page.tabs.plugins import PluginsTab
    from ui.service.run_store import RunStore

    current.configure(directory=options.plugins_dir, enabled=not options.no_plugins)
    registry = current.registry()
    print(registry.summary(), flush=True)
    runs = RunStore(
        Path(store.current.page.outputs),
        keep_steps=lambda: store.current.page.keep_steps,
        see_all=lambda: store.current.everybody_sees_all,
    )
    engine = ModelThread(load, store.current.page.model, fits_beside)
    jobs = Jobs(engine, runs, lambda: store.current.limits)
    tab = PluginsTab(
        registry,
        directory=options.plugins_dir,
        enabled=not options.no_plugins,
        tracebacks=not store.current.shared,
    )
    endpoints = Api(jobs, registry, store).build
    with no_application():
        return build_page(jobs, registry, endpoints, settings=store, plugins=tab), jobs


def _start(jobs: Jobs) -> None:
    """Update the history and load the model, both in the background.

    A page that is being opened goes first and then starts the model (`Workbench.on_open`): importing torch at
    the same time would slow down both.
    """
    jobs.runs.start()
    later = threading.Timer(PAGE_SECONDS, jobs.engine.start)
    later.daemon = True
    later.start()


def _load(options: PageOptions, store: SettingsStore, name: str) -> PagePipeline:
    from core.inference.pipeline import Pipeline

    page_settings = store.current.page
    pipeline = Pipeline.load(
        name,
        device=page_settings.device,
        dtype=page_settings.dtype,
        vae=options.vae,
        ema=options.ema,
        memory=page_settings.memory,
    )
    print(f"model {pipeline.name}: {pipeline.about}", file=sys.stderr, flush=True)
    return pipeline


def _launch(
    page: gr.Blocks, config: PageConfig, host: str, port: int, accounts: Accounts | None
) -> str | None:
    """Start the server in the background; the public address, if one was requested and created."""
    from PIL import Image
    from starlette.middleware import Middleware

    from ui.page.widgets.theme import look
    from ui.web.assets import Assets
    from ui.web.guard import Guard

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # for every image that is opened
    upload_bytes, root_path = config.guests.upload_bytes, config.page.root_path or ""
    guard = Middleware(Guard, upload_bytes=upload_bytes, only_here=not config.shared, address=root_path)
    with contextlib.redirect_stdout(io.StringIO()):  # its message about a failed share link fills the screen
        try:
            page.launch(
                server_name=host,
                server_port=port,
                root_path=root_path,
                auth=None if accounts is None else accounts.check,  # or awaitable  # pyrefly: ignore[bad-argument-type]
                share=config.page.share,
                quiet=True,
                prevent_thread_lock=True,
                show_error=False,
                ssr_mode=False,
                mcp_server=config.page.mcp,
                max_file_size=upload_bytes,
                strict_cors=True,
                run_history=False,
                enable_monitoring=False,
                app_kwargs={"middleware": [guard, Middleware(Assets)]},
                footer_links=[{"label": "API", "url": f"{root_path}/gradio_api/openapi.json"}],
                **look(),
            )
        except ValueError:
            # After starting, Gradio requests its own page and gives up after three seconds: too short on a
            # busy machine.
            if not page.is_running:
                raise
    return page.share_url


def _until_interrupted(page: gr.Blocks) -> None:
    with contextlib.suppress(KeyboardInterrupt), contextlib.redirect_stdout(io.StringIO()):
        page.block_thread()


def lines(config: PageConfig, port: int, shared: str | None, *, asks: bool) -> list[str]:
    """Messages for the terminal once the page is served. asks: whether it requires a login."""
    said = []
    if port != config.page.port:
        said.append(f"Port {config.page.port} is taken; using port {port}.")
    where = f"http://127.0.0.1:{port}"
    if config.page.listen:
        where += f", and at port {port} of this machine on the network"
    if config.page.root_path:
        where += f", for a proxy that serves it at {config.page.root_path}"
    said.append(f"LatentCanvas is at {where} (Ctrl+C stops it)")
    if shared:
        said.append(f"Share link, valid for a week: {shared}")
    elif config.page.share:
        said.append("No share link could be created (it needs the internet); the page works on this machine.")
    if config.page.mcp:
        said.append(f"MCP server for language models: {shared or f'http://127.0.0.1:{port}'}/gradio_api/mcp/")
    if config.shared and not asks:
        said.append(
            "Warning: anyone who can reach this page can use it; --auth user:password requires a login."
        )
    return said
