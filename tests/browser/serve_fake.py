"""Serve the page over the tests' fake model: `python -m tests.browser.serve_fake PORT OUTPUTS [PLUGINS]`."""

from __future__ import annotations

import sys
from pathlib import Path

from core.plugins import current
from tests.ui.fakes import FakePipeline
from ui.app import PageOptions, serve

SECONDS_A_STEP = 0.08


def main() -> None:
    """As the command does, with another model."""
    port, outputs, *plugins_dir = sys.argv[1:]
    folder = Path(plugins_dir[0]) if plugins_dir else None
    options = PageOptions(port=int(port), outputs=Path(outputs), plugins_dir=folder)
    serve(options, lambda name: FakePipeline(current.registry(), SECONDS_A_STEP))


if __name__ == "__main__":
    main()
