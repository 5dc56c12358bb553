"""Memory: the peak of this process, what is free, and how to release it."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def peak_memory_mb(device: torch.device) -> float | None:
    """Peak memory in MB of 2**20 bytes: of the accelerator if `device` is one, else of this process,
    including the pages of mapped files that were read. None where the system does not report it.
    """
    if device.type == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:  # on Linux getrusage may report a parent's peak, from before this program started
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the machine or an accelerator ran out of memory."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(error)
    short = "can't allocate memory" in words or "out of memory" in words  # the messages of CPU and MPS
    return isinstance(error, RuntimeError) and short


def trim_memory() -> None:
    """Return freed memory that the allocators hold to the system."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only; other allocators hold less
        if trim is not None:
            trim(0)


def release_memory() -> None:
    """Release the memory of a model that is no longer referenced."""
    gc.collect()
    trim_memory()


def free_memory(device: torch.device | None = None) -> int | None:
    """Free memory in bytes: of the accelerator if `device` is a CUDA device, else of this machine or of the
    container that it runs in. None where the system does not report it.
    """
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
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
