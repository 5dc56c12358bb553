"""Checks every request to the page: its origin, its size, and uploaded files.

Plain ASGI, given to Gradio as a middleware of its FastAPI app, so that Gradio itself is unchanged. A refusal
is one sentence of plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import UserError
from ui.web.links import check_upload, is_here, same_site

API = "/gradio_api"
MAX_JSON_BYTES = 16 * 1024**2
FILES_AT_ONCE = 4
SLACK = 1024**2  # for the multipart headers of an upload


class Refused(Exception):
    """A request that is refused with a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """Refuses requests that the page itself never sends; refuses and deletes bad uploads (`check_upload`).

    upload_bytes: the largest file. only_here: whether the page serves this machine only; then other hosts
    are refused too (DNS rebinding). address: that of a proxy which serves the page; requests from there are
    the page's own.
    """

    def __init__(self, app: ASGIApp, *, upload_bytes: int, only_here: bool, address: str = "") -> None:
        self._app, self._upload_bytes, self._only_here = app, upload_bytes, only_here
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it to Gradio."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_asker(scope)
            if scope["method"] != "POST":
                await self._app(scope, receive, send)
            elif _path(scope).endswith(f"{API}/upload"):
                await self._upload(scope, receive, send)
            else:
                await self._app(scope, await self._checked_body(scope, receive), send)
        except Refused as refused:
            await PlainTextResponse(str(refused), refused.status)(scope, receive, send)

    def _check_asker(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._only_here and not is_here(headers.get("host")):
            raise Refused(
                403,
                "This page accepts connections from its own machine only; start it with --listen for others.",
            )
        origin = headers.get("origin")
        if origin is not None and not same_site(origin, headers, self._address):
            raise Refused(403, "This page accepts no requests from other sites.")
        path = _path(scope).lower()
        for name in ("/file=", "/proxy="):
            if f"{API}{name}http" in path:
                raise Refused(403, "This page fetches no files from other addresses.")

    async def _checked_body(self, scope: Scope, receive: Receive) -> Receive:
        """The body of a call, read whole: not too long, and without files at other addresses."""
        body = b"".join([part async for part in _limited(scope, receive, MAX_JSON_BYTES)])
        kind = Headers(scope=scope).get("content-type") or ""
        if kind.startswith("application/json") and any(map(_is_address, _paths(_parsed(body)))):
            raise Refused(403, "This page fetches no files from other addresses: upload the file itself.")
        return _replay(body, receive)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Gradio store the files; its answer, their paths, is sent once each has been checked."""
        parts = _limited(scope, receive, FILES_AT_ONCE * self._upload_bytes + SLACK)
        answer: list[Message] = []

        async def collect(message: Message) -> None:
            answer.append(message)

        await self._app(scope, _stream(parts, receive), collect)
        if answer and answer[0]["status"] == 200:
            paths = [Path(str(name)) for name in _parsed(b"".join(m.get("body", b"") for m in answer[1:]))]
            try:
                await anyio.to_thread.run_sync(self._check_files, paths)
            except UserError as error:
                raise Refused(422, f"{error}.") from None
        for message in answer:
            await send(message)

    def _check_files(self, paths: list[Path]) -> None:
        try:
            for path in paths:
                check_upload(path, self._upload_bytes)
        except UserError:
            for path in paths:
                path.unlink(missing_ok=True)
            raise


def _path(scope: Scope) -> str:
    """The request's path, which may begin with the path that the page is served under (`--root-path`)."""
    return str(scope["path"]).rstrip("/")


async def _limited(scope: Scope, receive: Receive, most: int) -> Any:
    """The body, part by part. Raises Refused as soon as it is too long."""
    sentence = f"The request is larger than the {most // 1024**2} MB that the page accepts."
    stated = Headers(scope=scope).get("content-length", "0")
    if not stated.isdigit() or int(stated) > most:
        raise Refused(413, sentence)
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        part = message.get("body", b"")
        more, size = message.get("more_body", False), size + len(part)
        if size > most:
            raise Refused(413, sentence)
        yield part


def _stream(parts: Any, receive: Receive) -> Receive:
    """A `receive` that passes on these parts as they arrive."""
    ended = False

    async def receive_part() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        try:
            return {"type": "http.request", "body": await anext(parts), "more_body": True}
        except StopAsyncIteration:
            ended = True
            return {"type": "http.request", "body": b"", "more_body": False}

    return receive_part


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns this body again, and then further messages, such as a disconnect."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _parsed(body: bytes) -> Any:
    """The parsed JSON; an empty list if it is invalid, which Gradio then refuses."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return []


def _paths(value: Any) -> Iterator[str]:
    """Every `path` of an object anywhere in a call."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(one.get("path"), str):
                yield one["path"]
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _is_address(path: str) -> bool:
    return path.strip().lower().startswith(("http:", "https:", "//"))
