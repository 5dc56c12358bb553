"""The process that `measure` starts: `python -m core.bench SIDE JOB`, figures as JSON on the last line."""

from __future__ import annotations

import json
import sys
from importlib import import_module

from core.bench import BenchJob
from core.errors import UserError

if __name__ == "__main__":
    try:
        figures = import_module(f"core.bench.{sys.argv[1]}").measure(BenchJob(**json.loads(sys.argv[2])))
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps(figures))
