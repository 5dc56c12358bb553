"""3x3 convolutions by Winograd's minimal filtering, F(4x4, 3x3): Lavin and Gray 2015, arXiv:1509.09308.

A cell of 4x4 results is computed from the 6x6 inputs that it sees. Inputs and filters are brought to where a
convolution is a product, number by number, so that a cell costs 36 of them a pair of channels instead of 144.
Over all cells and channels these are 36 products of matrices, which processors are best at; the way forth and
back is little beside them where channels are many.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CELL, TAPS = 4, 3
SEEN = CELL + TAPS - 1
# Where polynomials are evaluated, and at infinity. Each with its negative inverse, as Alam et al. 2022 advise
# (arXiv:2201.10369): two thirds of the error that the 0, +-1, +-2 of Lavin and Gray have.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
# Cells at a time, and pairs of channels: what is in between then stays in the processor's cache.
CHUNK, BLOCK = 128, 1 << 17
# Where channels, in or out, or the cells of a picture are fewer, the direct way is as fast.
CHANNELS, CELLS = 256, 64


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether `convolve` is the way for these: in float32 on a CPU where no gradient is wanted."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled():
        return False
    rows, columns = _cells(x)
    return min(weight.shape[:2]) >= CHANNELS and rows * columns >= CELLS


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution of x (B, C, H, W), zeros around it, by weight (O, C, 3, 3), plus bias (O,):
    (B, O, H, W), channels last.
    """
    (b, _, h, w), (rows, columns) = x.shape, _cells(x)
    forth, _, back = _matrices()
    images = max(CHUNK // (rows * columns), 1)  # at a time; of one that is larger, so many rows of cells:
    strip = min(max(CHUNK // columns, 1), rows)
    out = x.new_empty(b, rows, CELL, columns, CELL, len(weight))
    blocks = -(-weight.shape[0] * weight.shape[1] // BLOCK)
    filters: Iterable[Tensor] = map(_transformed, weight.chunk(blocks))
    if b > images or rows > strip:
        filters = list(filters)  # else one block at a time: all take four times the memory of the weights
    for i in range(0, b, images):
        for top in range(0, rows, strip):
            some, lines = slice(i, i + images), slice(top, top + strip)
            seen = _seen(x[some], top, min(top + strip, rows), columns)  # (36, cells, C)
            given = _along_both(forth, seen).view_as(seen)
            to = out[some, lines]
            for block, its, plus in zip(filters, to.chunk(blocks, -1), bias.chunk(blocks), strict=True):
                products = torch.bmm(given, block)  # (36, cells, o)
                made = _along_both(back, products).view(CELL, CELL, *to.shape[:2], columns, -1)
                torch.add(made.permute(2, 3, 0, 4, 1, 5), plus, out=its)
    out = out.view(b, rows * CELL, columns * CELL, -1)[:, :h, :w]
    return out.contiguous().permute(0, 3, 1, 2)


def _cells(x: Tensor) -> tuple[int, int]:
    """How many there are, down and across."""
    return -(-x.shape[2] // CELL), -(-x.shape[3] // CELL)


def _seen(x: Tensor, top: int, end: int, columns: int) -> Tensor:
    """What the cells of these rows of cells see: (36, cells, C)."""
    h, w = x.shape[2:]
    first, last = CELL * top - 1, CELL * end + 1
    border = (1, CELL * columns + 1 - w, max(-first, 0), max(last - h, 0))
    part = F.pad(x[:, :, max(first, 0) : last], border)
    cells = part.unfold(2, SEEN, CELL).unfold(3, SEEN, CELL)  # (b, C, rows, columns, 6, 6)
    return cells.permute(4, 5, 0, 2, 3, 1).reshape(SEEN * SEEN, -1, x.shape[1])


def _transformed(weight: Tensor) -> Tensor:
    """The filters: (O, C, 3, 3) -> (36, C, O)."""
    taps = weight.permute(0, 2, 3, 1).flatten(1, 2)  # (O, 9, C)
    return torch.matmul(_matrices()[1], taps).permute(1, 2, 0)


def _along_both(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix (M, N) along both sides of cells x (N * N, ...): (M, M, the rest as one)."""
    m, n = matrix.shape
    return torch.matmul(matrix, (matrix @ x.reshape(n, -1)).view(m, n, -1))


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """The paper's Bᵀ (6, 6) for inputs, G for filters, for both sides at once (36, 9), and Aᵀ (4, 6) for
    results, as Toom and Cook make them.
    """
    others = [[q for q in POINTS if q != p] for p in POINTS]
    scales = [float(np.prod([p - q for q in rest])) for p, rest in zip(POINTS, others, strict=True)]
    inputs = [[*np.poly(rest)[::-1], 0.0] for rest in others] + [np.poly(POINTS)[::-1]]
    filters = [[p**k / scale for k in range(TAPS)] for p, scale in zip(POINTS, scales, strict=True)]
    results = [[p**k for p in POINTS] + [float(k == CELL - 1)] for k in range(CELL)]
    forth, transform, back = (
        torch.tensor(np.array(rows), dtype=torch.float32)
        for rows in (inputs, [*filters, [0.0, 0.0, 1.0]], results)
    )
    return forth, torch.kron(transform, transform), back
