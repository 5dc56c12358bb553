"""A reverse proxy that serves a page under a path, as nginx and Caddy do in docs/serving.md."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """Where it listens, and the paths outside of that one that were asked for."""

    url: str
    strays: list[str] = field(default_factory=list)


@contextmanager
def proxied(target: str, path: str) -> Generator[Proxy]:
    """A proxy for the server at `target`, which serves it below `path` and hands on no other request."""
    port = urlsplit(target).port
    behind: list[http.client.HTTPConnection] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            if not self.path.startswith(f"{path}/"):
                proxy.strays.append(self.path)
                self.send_error(404)
                return
            host = self.headers["Host"]
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            headers |= {"X-Forwarded-Host": host, "X-Forwarded-Proto": "http", "X-Forwarded-For": "10.0.0.9"}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            behind.append(server)
            server.request(self.command, self.path.removeprefix(path), body, headers)
            answer = server.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            with closing(server), suppress(http.client.IncompleteRead):  # where the proxy ends a stream
                while part := answer.read1(65536):
                    self.wfile.write(part)
                    self.wfile.flush()
            self.close_connection = True

        do_POST = do_GET  # noqa: N815 - the library's name

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()
            for one in behind:  # streams that would keep the page from ending
                if one.sock is not None:
                    with suppress(OSError):
                        one.sock.shutdown(socket.SHUT_RDWR)
