"""Serve the page: find a port, start the server, then load the model behind it.

Gradio is imported when the page is served and torch only in the model's thread, so commands that need neither
stay quick, and the page is there before the model is.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    import gradio as gr

    from ui.engine import Engine, PagePipeline

DEFAULT_PORT = 7860
PORTS_TRIED = 100
OUTPUTS = Path("outputs")


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """What the command line says about the page. `auth` is "user:password"; a port of None means 7860."""

    model: str = "tiny"
    vae: Path | None = None
    ema: bool = False
    device: str | None = None
    dtype: str | None = None
    share: bool = False
    auth: str | None = None
    listen: bool = False
    port: int | None = None
    outputs: Path = OUTPUTS
    plugins_dir: Path | None = None
    no_plugins: bool = False


def serve(options: PageOptions, load: Callable[[str], PagePipeline] | None = None) -> None:
    """Serve the page until it is interrupted. `load` gives another model than the one that `options` names.

    Raises UserError for an option that cannot be met.
    """
    from core.files import check_writable

    auth = parse_auth(options.auth)
    check_writable(options.outputs)
    host = "0.0.0.0" if options.listen else "127.0.0.1"
    port = free_port(host, options.port or DEFAULT_PORT)
    _settle_gradio()
    page, engine = _page(options, load or (lambda name: _load(options, name)))
    shared = _launch(page, host, port, auth, options.share)
    engine.start()
    for line in lines(options, port, shared):
        print(line, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        page.block_thread()


def parse_auth(text: str | None) -> tuple[str, str] | None:
    """(user, password) from "user:password". Raises UserError."""
    if text is None:
        return None
    user, colon, password = text.partition(":")
    if not colon or not user or not password:
        raise UserError("--auth: write it as user:password, both not empty")
    return user, password


def free_port(host: str, wanted: int) -> int:
    """The wanted port, or the next free one after it. Raises UserError if there is none."""
    if not 1 <= wanted <= 65535:
        raise UserError(f"--port {wanted}: must be between 1 and 65535")
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if os.name != "nt":  # as the server does: a port that was just left counts as free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError as error:
                raise UserError(f"--port {port}: is not allowed here; choose one above 1023") from error
            except OSError:
                continue
            return port
    raise UserError(f"--port {wanted}: it and the ports after it are taken; choose another")


def _settle_gradio() -> None:
    """Before Gradio is imported: it asks its makers for no news, and itself without a proxy."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))


def _page(options: PageOptions, load: Callable[[str], PagePipeline]) -> tuple[gr.Blocks, Engine]:
    from core import plugins
    from ui.engine import Engine, fits_beside
    from ui.jobs import Jobs
    from ui.keeping import Runs
    from ui.page import build_page

    plugins.configure(directory=options.plugins_dir, enabled=not options.no_plugins)
    registry = plugins.registry()
    print(registry.summary(), flush=True)
    engine, runs = Engine(load, options.model, fits_beside), Runs(options.outputs)
    runs.start()
    return build_page(Jobs(engine, runs), registry), engine


def _load(options: PageOptions, name: str) -> PagePipeline:
    from core.pipeline import Pipeline

    return Pipeline.load(name, device=options.device, dtype=options.dtype, vae=options.vae, ema=options.ema)


def _launch(page: gr.Blocks, host: str, port: int, auth: tuple[str, str] | None, share: bool) -> str | None:
    """Start the server in the background; the public address, if one was asked for and could be had."""
    from ui.widgets.theme import look

    with contextlib.redirect_stdout(io.StringIO()):  # its words about a failed share link fill the screen
        try:
            page.launch(
                server_name=host,
                server_port=port,
                auth=auth,
                share=share,
                quiet=True,
                prevent_thread_lock=True,
                show_error=False,
                ssr_mode=False,
                footer_links=[],
                **look(),
            )
        except ValueError:
            # After it has started, Gradio asks itself for the page, and gives up after three seconds: on a
            # busy machine that means nothing.
            if not page.is_running:
                raise
    return page.share_url


def lines(options: PageOptions, port: int, shared: str | None) -> list[str]:
    """What the terminal says once the page is up."""
    wanted = options.port or DEFAULT_PORT
    said = []
    if port != wanted:
        said.append(f"Port {wanted} is taken, so this is on {port}.")
    where = f"http://127.0.0.1:{port}"
    if options.listen:
        where += f", and at port {port} of this machine on the network"
    said.append(f"LatentCanvas is at {where} (Ctrl+C ends it)")
    if shared:
        said.append(f"Share link, good for a week: {shared}")
    elif options.share:
        said.append("No share link could be had (it needs the internet); the page works here all the same.")
    if (options.share or options.listen) and options.auth is None:
        said.append(
            "Warning: anyone who can reach this page can use it; --auth user:password asks for a password."
        )
    return said
