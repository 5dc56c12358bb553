"""How Gradio's own scripts and styles reach a browser: its files in /assets, a hundred for a page.

Plain ASGI, given to Gradio as a middleware of its FastAPI app. A file's name there changes with its content,
so a browser may keep it for good. Gradio compresses every answer anew, which for a browser on the same
machine takes longer than it saves, and keeps the server from answering anything else meanwhile.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.web.links import is_here

FOR_GOOD = "public, max-age=31536000, immutable"


class Assets:
    """Lets browsers keep what is in /assets, and sends it to this machine as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer through Gradio."""
        if scope["type"] != "http" or not scope["path"].startswith("/assets/"):
            await self._app(scope, receive, send)
            return
        here = is_here(Headers(scope=scope).get("host"))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                headers = MutableHeaders(scope=message)
                headers["Cache-Control"] = FOR_GOOD
                if here:
                    headers["Content-Encoding"] = "identity"  # Gradio compresses what has no encoding yet
            await send(message)

        await self._app(scope, receive, marked)
