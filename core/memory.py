"""How much memory this process has used, how much more there is, and how it is given back."""

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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short, of the machine or of an accelerator."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(error)
    short = "can't allocate memory" in words or "out of memory" in words  # a CPU's words, and Apple's
    return isinstance(error, RuntimeError) and short


def trim_memory() -> None:
    """Give what was freed back to the system, where the allocators keep it for later."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others keep less
        if trim is not None:
            trim(0)


def release_memory() -> None:
    """Give back what a model that was let go held."""
    gc.collect()
    trim_memory()


def free_memory(device: torch.device | None = None) -> int | None:
    """The bytes that a process may still take: of the accelerator when `device` is one that says so, else of
    this machine or of the container that it runs in.

    None where the system does not say.
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
