"""How much memory this process has used, and how much more there is."""

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


def free_memory() -> int | None:
    """The bytes that a process may still take, of this machine or of the container that it runs in.

    None where the system does not say.
    """
    room = []
    try:
        memory = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace")
        [kilobytes] = re.findall(r"^MemAvailable:\s+([0-9]+) kB", memory, re.MULTILINE)
        room.append(int(kilobytes) * 2**10)
        group = Path("/sys/fs/cgroup")  # https://docs.kernel.org/admin-guide/cgroup-v2.html
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        room.append(int(limit) - int(used))
    except (OSError, ValueError):  # another system, or no limit: "max"
        pass
    return min(room, default=None)
