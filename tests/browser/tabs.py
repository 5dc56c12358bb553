"""One tab alone in the browser: a server for it, and the windows that it is looked at in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import ROOT, Site, address

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
# Both colours and both sizes.
WINDOWS: dict[str, dict[str, Any]] = {"light": {}, "phone": {**PHONE, "color_scheme": "dark"}}
LOOKS = [pytest.param(*window, marks=pytest.mark.slow) for window in WINDOWS.items()]


@contextmanager
def serve_tab(name: str, folder: Path) -> Generator[Site]:
    """A process that serves the tab; `folder` is its plugins or outputs, if it has any."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.browser.serve_tab", name, port, str(folder)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield Site(address(server), folder)
        finally:
            server.terminate()
