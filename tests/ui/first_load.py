"""How soon the page is there: `python -m tests.ui.first_load` prints it, beside what importing Gradio takes.

Seconds on the clock depend on what else the machine does, so those of the processor are counted, too.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class FirstLoad:
    """Seconds from the command to the page and to the loaded model; `cpu` are the processor's to the page."""

    page: float
    model: float
    cpu: float


def importing_gradio() -> tuple[float, float]:
    """Seconds, on the clock and of the processor, of a Python that imports Gradio and ends."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gradio"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def first_load() -> FirstLoad:
    """Start the page as a person does, by launcher.py, and ask for it until it is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "launcher.py"), "--port", str(port), "--outputs", folder]
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
            try:
                _until_page(url)
                page, cpu = time.perf_counter() - began, _cpu(server.pid)
                _until_model(url)
                return FirstLoad(page, time.perf_counter() - began, cpu)
            finally:
                server.send_signal(signal.SIGINT)


def _until_page(url: str) -> None:
    while True:
        with contextlib.suppress(httpx.ConnectError):
            if httpx.get(f"{url}/config", timeout=60, trust_env=False).status_code == 200:
                return
        time.sleep(0.05)


def _until_model(url: str) -> None:
    while True:
        event = httpx.post(f"{url}/gradio_api/call/models", json={"data": []}, trust_env=False, timeout=60)
        route = f"{url}/gradio_api/call/models/{event.json()['event_id']}"
        if '"loaded": true' in httpx.get(route, trust_env=False, timeout=60).text:
            return
        time.sleep(0.05)


def _cpu(pid: int) -> float:
    """Seconds of the processor that a process has used until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    importing_gradio()  # from the disk
    seconds, cpu = importing_gradio()
    load = first_load()
    print(f"importing gradio: {seconds:.1f} s, {cpu:.2f} s of the processor")
    print(f"page: {load.page:.1f} s, {load.cpu:.2f} s of the processor ({load.cpu / cpu:.2f} times gradio)")
    print(f"model loaded: {load.model:.1f} s")
