"""Caching of Gradio's scripts and styles: the files in /assets, about a hundred per page.

Plain ASGI, given to Gradio as a middleware of its FastAPI app. A file's name there changes with its content,
so a browser may cache it forever. Gradio compresses every response again, which for a browser on the same
machine takes longer than it saves, and blocks the server meanwhile.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.web.links import is_here

FOR_GOOD = "public, max-age=31536000, immutable"


class Assets:
    """Makes browsers cache /assets, and sends it uncompressed to this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Gradio answer, with changed headers for /assets."""
        path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or not path.startswith("/assets/"):
            await self._app(scope, receive, send)
            return
        here = is_here(Headers(scope=scope).get("host"))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                headers = MutableHeaders(scope=message)
                headers["Cache-Control"] = FOR_GOOD
                if here:
                    headers["Content-Encoding"] = (
                        "identity"  # Gradio compresses responses without an encoding
                    )
            await send(message)

        await self._app(scope, receive, marked)
