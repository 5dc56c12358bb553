"""The device and dtype that the networks run in."""

from __future__ import annotations

import torch

from core.errors import UserError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def find_device(name: str | None) -> torch.device:
    """The device of that name; the best available one when None. Raises UserError."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).sum().item()  # fails on the device "meta"
    except (RuntimeError, AssertionError):  # NotImplementedError is one too
        raise UserError(f"Device {name!r} is not available on this machine: try cpu.") from None
    return device


def find_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """float32, float16 or bfloat16. When None the fastest on the device: float16 on an accelerator; on a CPU
    bfloat16 if the hardware supports it, else float32. Raises UserError.
    """
    if name is None:
        if device.type != "cpu":
            return torch.float16
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise UserError(f"dtype {name!r} is not known; known are {', '.join(DTYPES)}.")
    return DTYPES[name]


def dtype_words(name: str | None, device: torch.device) -> str:
    """What `find_dtype` chose and why: "bfloat16, native on this processor"."""
    found = str(find_dtype(name, device)).removeprefix("torch.")
    if name is not None:
        return f"{found}, as requested"
    if device.type != "cpu":
        return f"{found}, the fastest on {device.type}"
    if has_bfloat16(device):
        return f"{found}, native on this processor"
    return f"{found}, as this processor only emulates bfloat16"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16. A processor without AVX512-BF16 or AMX emulates it, a
    hundred times slower than float32.
    """
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
