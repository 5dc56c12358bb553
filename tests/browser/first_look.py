"""How soon a person can use the page: `python -m tests.browser.first_look [times]`.

Each time the page is started by launcher.py and opened in a Chromium that is there already. It prints the
seconds from the command to the address in the terminal, to the form, and to the loaded model's examples.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.browser.conftest import FLAGS, ROOT, address, free_port, sync_api


def first_look(browser: Any, folder: Path) -> tuple[float, float, float]:
    """Seconds to the address, the form and the examples."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    command = [sys.executable, str(ROOT / "launcher.py"), "--port", free_port(), "--outputs", str(folder)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = address(server)
            told = time.perf_counter() - began
            page.goto(url, wait_until="commit")
            page.locator("#prompt textarea").wait_for()
            form = time.perf_counter() - began
            page.locator("#examples .lc-chips button").first.wait_for(state="attached")
            return told, form, time.perf_counter() - began
        finally:
            page.close()
            server.terminate()


def main(times: int) -> None:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright, TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for _ in range(times):
            told, form, examples = first_look(browser, Path(folder))
            print(f"address {told:.1f} s, form {form:.1f} s, examples {examples:.1f} s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
