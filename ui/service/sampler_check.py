"""The conformance check of a sampler for the page, in a separate process.

Some rules test global state of the process, such as random states, and a plugin may hang or exit: neither may
affect the page. The process runs `samplers check NAME --json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError

SECONDS = 300.0  # a check takes about ten; one that hangs is killed
_ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-c", "import sys; from ui.cli import main; sys.exit(main())")


class Check:
    """One check, started on creation. `stop` it, or read its `report` when `wait` returns True."""

    def __init__(
        self,
        sampler: str,
        options: Mapping[str, object] | None = None,
        *,
        directory: Path | None = None,
        enabled: bool = True,
        seconds: float = SECONDS,
    ) -> None:
        """directory, enabled: which plugins are loaded, as for `core.plugins.current.configure`."""
        self.sampler, self._seconds, self._started = sampler, seconds, time.monotonic()
        words = ["samplers", "check", "--json"]
        words += [word for name, value in (options or {}).items() for word in ("--option", f"{name}={value}")]
        words += [] if directory is None else ["--plugins-dir", str(directory.resolve())]
        words += [] if enabled else ["--no-plugins"]
        self.process = subprocess.Popen(
            [*COMMAND, *words, "--", sampler],
            cwd=_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )

    @property
    def seconds(self) -> float:
        """Its duration so far."""
        return time.monotonic() - self._started

    def wait(self, seconds: float) -> bool:
        """Wait for its end; False if it still runs. Kills it and raises UserError after too long a time."""
        try:
            self._output = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            if self.seconds < self._seconds:
                return False
            self.stop()
            raise UserError(
                f"the check of {self.sampler} took more than {self._seconds:.0f} seconds and was stopped; "
                "look for an endless loop"
            ) from None
        return True

    def report(self) -> dict[str, Any]:
        """`core.conformance.Report.to_dict` of a check that has ended. Raises UserError if there is none."""
        said, complaint = self._output
        if self.process.returncode in (0, 1):  # all rules hold; some are broken
            try:
                report: dict[str, Any] = json.loads(said)["samplers"][0]
                return report
            except (ValueError, KeyError, IndexError):
                pass
        last = complaint.strip().rpartition("\n")[2].removeprefix("latentcanvas: ").removeprefix("error: ")
        raise UserError(last or f"the check of {self.sampler} ended without a message; run it in a terminal")

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()
