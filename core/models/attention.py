"""Attention: torch's kernel; on a CPU in bfloat16 chunks of queries if these are faster, and plain products
while training.

Which is faster depends on the processor: torch's kernel with AMX, possibly the chunks without. So both are
timed once for each shape, and the result is stored in the user's cache: the last digits of an image depend
on it, and one seed must give one image.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from core import cache_folder
from core.device import has_bfloat16

LEAST = 1024  # positions; with fewer, attention is a small part of a step
CHUNK = 512  # queries at a time, so that their scores stay in the processor's cache
HEADS = 2  # heads to time
ROUNDS = 3  # timings of each way, in turns
FEW = 2**18  # scores of a head; with more, the plain products would take too much memory
CLEARLY = 0.9  # the chunks are used if they take less than this share of the kernel's time
FILE = "attention.json"

chosen: dict[str, bool] = {}  # whether a shape is computed in chunks
_choosing = threading.Lock()


def attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
    """softmax(q kᵀ / sqrt(D)) v of q (B, heads, N, D) and k, v (B, heads, T, D): arXiv:1706.03762, eq. 1.

    is_causal: position n sees the first n + 1 keys alone. While training on a CPU, few positions go by plain
    products: the backward pass of torch's kernel takes several times as long as theirs.
    """
    if torch.is_grad_enabled() and q.device.type == "cpu" and q.shape[2] * k.shape[2] <= FEW:
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    few = min(q.shape[2], k.shape[2]) < LEAST
    plain = few or is_causal or q.device.type != "cpu" or q.dtype != torch.bfloat16
    if plain or torch.is_grad_enabled() or not by_chunks(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    return chunked(q, k, v)


def chunked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attention` of q (B, heads, N, D) and k, v (B, heads, T, D), head by head, `CHUNK` queries at a time;
    the scores are rounded to q's dtype.
    """
    b, heads, n, width = q.shape
    out = q.new_empty(b, n, heads, width).transpose(1, 2)  # the layout that callers read
    nothing = q.new_zeros(1)
    for i in range(b):
        for head in range(heads):
            keys, values = k[i, head].t().contiguous(), v[i, head].contiguous()
            for first in range(0, n, CHUNK):
                some = slice(first, first + CHUNK)
                scores = torch.addmm(nothing, q[i, head, some], keys, beta=0, alpha=width**-0.5)
                out[i, head, some] = scores.softmax(-1) @ values
    return out


def by_chunks(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `chunked` is faster for q (B, heads, N, D) and k, v (B, heads, T, D), on this machine with this
    number of threads.
    """
    if not has_bfloat16(q.device):
        return False
    name = f"{q.shape[2]}x{k.shape[2]}x{q.shape[3]}, {torch.get_num_threads()} threads"
    if name not in chosen:
        with _choosing:
            if name not in chosen:
                chosen[name] = _found(name, lambda: chunks_are_faster(q, k, v))
    return chosen[name]


def chunks_are_faster(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `chunked` takes less time than torch's kernel, measured on a few heads of q, k, v, each
    (B, heads, N, D).
    """
    few = [each[:1, :HEADS] for each in (q, k, v)]
    ways: tuple[Callable[..., Tensor], ...] = (chunked, F.scaled_dot_product_attention)
    spent: tuple[list[float], ...] = ([], [])
    for _ in range(ROUNDS):
        for way, times in zip(ways, spent, strict=True):
            began = time.perf_counter()
            way(*few)
            times.append(time.perf_counter() - began)
    ours, kernels = (min(times) for times in spent)
    return ours < CLEARLY * kernels


def _found(name: str, measure: Callable[[], bool]) -> bool:
    """The cached result, or a new measurement, which is then cached if possible."""
    here = f"{platform.node()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    known = cache_folder.read(FILE)
    shapes = known.get(here)
    if not isinstance(shapes, dict):
        shapes = known[here] = {}
    if not isinstance(shapes.get(name), bool):
        shapes[name] = measure()
        cache_folder.keep(FILE, known)
    return bool(shapes[name])
