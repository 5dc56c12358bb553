"""A hub on this machine: the requests that huggingface_hub makes of one, and what can go wrong with them."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

LARGE = 1000  # bytes from which on a file is kept apart, with a SHA-256, as with Git LFS
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def digest(data: bytes) -> str:
    """The hash that the hub gives for a file: SHA-256 of a large one, git's SHA-1 of a small one."""
    if len(data) >= LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Hub:
    """A repository, `owner/name`, and how the hub behaves. Large files are on a second server, as a CDN's."""

    files: dict[str, bytes]
    licence: str | None = "creativeml-openrail-m"
    gated: bool = False
    error: tuple[int, str] | None = None  # every answer: status and X-Error-Code
    lists_hashes: bool = True  # some mirrors do not: then a HEAD request tells
    knows_ranges: bool = True
    breaks: dict[str, list[int]] = field(
        default_factory=dict
    )  # bytes after which the connection breaks, in turn
    sends: dict[str, bytes] = field(default_factory=dict)  # another content than announced
    answer: bytes | None = None  # in place of the repository's description
    endpoint: str = ""
    storage: str = ""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, headers

    @contextmanager
    def running(self) -> Generator[Hub]:
        """Serve until the end of the block."""
        with _server(self) as self.endpoint, _server(self) as self.storage:
            yield self

    def requests(self, method: str, name: str) -> list[dict[str, str]]:
        """Headers of the requests of a file."""
        return [headers for verb, path, headers in self.asked if verb == method and path.endswith(name)]

    def listing(self) -> dict[str, Any]:
        """What the API says of the repository."""
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in self.files]
        if self.lists_hashes:
            for sibling, data in zip(siblings, self.files.values(), strict=True):
                sibling |= {"size": len(data), "blobId": digest(data)}
                if len(data) >= LARGE:
                    sibling["blobId"] = "0" * 40
                    sibling["lfs"] = {"sha256": digest(data), "size": len(data), "pointerSize": 130}
        card = {"license": self.licence} if self.licence else {}
        return {
            "id": "owner/name",
            "sha": COMMIT,
            "private": False,
            "gated": "auto" if self.gated else False,
            "siblings": siblings,
            "cardData": card,
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }


@contextmanager
def _server(hub: Hub) -> Generator[str]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        if hub.error:
            status, code = hub.error
            return self._send(status, b"{}", {"X-Error-Code": code} if code else {})
        if re.fullmatch(rf"/api/models/owner/name(/revision/(main|{COMMIT}))?", path):
            listing = hub.answer or json.dumps(hub.listing()).encode()
            return self._send(200, listing, {"Content-Type": "application/json"})
        if path.startswith("/api/models/owner/name/revision/"):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/"):
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        return self._file(path.removeprefix(f"/owner/name/resolve/{COMMIT}/").removeprefix("/stored/"), path)

    def _file(self, name: str, path: str) -> None:
        data = self.hub.files.get(name)
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{digest(data)}"', "X-Repo-Commit": COMMIT}
        if len(data) >= LARGE and not path.startswith("/stored/"):
            linked = {"X-Linked-Etag": f'"{digest(data)}"', "X-Linked-Size": str(len(data))}
            location = {"Location": f"{self.hub.storage}/stored/{name}"}
            return self._send(302, b"", {**headers, **linked, **location})
        data = self.hub.sends.get(name, data)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and self.hub.knows_ranges else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        stops = self.hub.breaks.get(name, [])
        keep = stops.pop(0) if stops and self.command == "GET" else None
        return self._send(206 if start else 200, data[start:], headers, keep)

    def _send(self, status: int, body: bytes, headers: dict[str, str], keep: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:keep])
        if keep is not None:  # hang up in the middle
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
