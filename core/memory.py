"""How much memory this process has used."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory held at once, in MB of 2**20 bytes: of the accelerator when `device` is one, else of
    this process, mapped files included as far as they were read. None where the system does not say.
    """
    if device.type == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:  # what getrusage says on Linux may be a parent's, from before this program was started
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        [kilobytes] = re.findall(r"^VmHWM:\s+([0-9]+) kB", status, re.MULTILINE)
        return round(int(kilobytes) / 2**10, 1)
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
