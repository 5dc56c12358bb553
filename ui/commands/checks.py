"""`test`: lint, format, types and tests, in the one command that CI runs too. For a checkout only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).resolve().parents[2]
CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("lint", ("ruff", "check", ".")),
    ("format", ("ruff", "format", "--check", ".")),
    ("types", ("pyrefly", "check", "--python-interpreter-path", sys.executable)),
    # One process per core, of one thread each (tests/conftest.py); the tests of a file share a page and so a
    # process.
    ("tests", ("pytest", f"--numprocesses={min(os.cpu_count() or 1, 8)}", "--dist=loadfile")),
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Debian's chromium comes without a font.
DEBIAN_PACKAGES = ("chromium", "fonts-liberation")


app = typer.Typer(add_completion=False, rich_markup_mode=None)


# Further arguments are for pytest.
@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run lint, type checks and tests; further arguments go to pytest."""
    if not (CHECKOUT / "tests").is_dir():
        raise UserError("the tests are not part of an installation: run them in a clone of the repository.")
    failed = [] if ensure_browser() else ["browser"]
    for name, command in CHECKS:
        further = context.args if name == "tests" else []
        if not run_check(name, [*command, *further]):
            failed.append(name)
    print("\nlatentcanvas test:", f"FAILED: {', '.join(failed)}" if failed else "all passed", flush=True)
    if failed:
        raise typer.Exit(1)


def run_check(name: str, command: Sequence[str]) -> bool:
    """Run one tool of this environment in the checkout; True if it passed."""
    print(f"\n== {name}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-m", *command], cwd=CHECKOUT, check=False)
    verdict = "passed" if done.returncode == 0 else "FAILED"
    print(f"== {name}: {verdict} in {time.monotonic() - start:.0f} s", flush=True)
    return done.returncode == 0


def ensure_browser() -> bool:
    """Make sure that there is a Chromium for the browser tests: install Debian's if possible.

    Without one these tests are skipped and a message says why; if the variable CI is set, that fails (False).
    """
    if any(map(shutil.which, BROWSERS)):
        return True
    why = _install_browser()
    if not why:
        return True
    strict = bool(os.environ.get("CI"))
    follows = "a failure, as CI is set" if strict else "the browser tests WILL BE SKIPPED"
    print(f"latentcanvas test: NO CHROMIUM ({why}): {follows}", file=sys.stderr, flush=True)
    return not strict


def _install_browser() -> str:
    """Install Debian's chromium; return the reason if that fails, else ""."""
    apt = shutil.which("apt-get")
    if apt is None:
        return "none is installed, and there is no apt-get to install it"
    if os.geteuid() != 0:
        return "none is installed, and only root may install it: apt-get install chromium"
    print("latentcanvas test: installing chromium by apt-get for the browser tests", flush=True)
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *DEBIAN_PACKAGES]):
        done = subprocess.run([apt, "--quiet=2", *arguments], env=quiet, check=False)
        if done.returncode and arguments[0] == "install":
            return f"apt-get {arguments[0]} failed with exit code {done.returncode}"
    return "" if any(map(shutil.which, BROWSERS)) else "apt-get installed no chromium on the PATH"
