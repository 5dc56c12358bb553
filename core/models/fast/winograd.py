"""3x3 convolutions by Winograd's minimal filtering, F(4x4, 3x3): Lavin and Gray 2015, arXiv:1509.09308.

A cell of 4x4 outputs is computed from 6x6 inputs. Inputs and filters are transformed so that the convolution
is an elementwise product: 36 multiplications for a cell and a pair of channels instead of 144. Over all cells
and channels these are 36 matrix products, which processors are fast at; with many channels the transforms
cost little.
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
# The interpolation points, and infinity. Each with its negative inverse, as in Alam et al. 2022
# (arXiv:2201.10369): two thirds of the error of Lavin and Gray's 0, +-1, +-2.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
# Cells and pairs of channels at a time, so that intermediate results stay in the processor's cache.
CHUNK, BLOCK = 128, 1 << 17
# With fewer channels (in or out) or cells in an image, direct convolution is as fast.
CHANNELS, CELLS = 256, 64


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether to use `convolve` for x (B, C, H, W) and weight (O, C, 3, 3): in float32 on a CPU, without
    gradients, with enough channels and cells.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled():
        return False
    rows, columns = _cells(x)
    return min(weight.shape[:2]) >= CHANNELS and rows * columns >= CELLS


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The zero-padded convolution of x (B, C, H, W) with weight (O, C, 3, 3) and bias (O,): (B, O, H, W),
    channels last.
    """
    (b, _, h, w), (rows, columns) = x.shape, _cells(x)
    forth, _, back = _matrices()
    images = max(CHUNK // (rows * columns), 1)  # at a time; a larger image in groups of rows of cells:
    group = min(max(CHUNK // columns, 1), rows)
    out = x.new_empty(b, rows, CELL, columns, CELL, len(weight))  # (B, rows, 4, columns, 4, O)
    blocks = -(-weight.shape[0] * weight.shape[1] // BLOCK)
    filters: Iterable[Tensor] = map(_transformed, weight.chunk(blocks))
    if b > images or rows > group:
        filters = list(filters)  # else one block at a time: all take four times the weights' memory
    for i in range(0, b, images):
        for top in range(0, rows, group):
            some, lines = slice(i, i + images), slice(top, top + group)
            seen = _seen(x[some], top, min(top + group, rows), columns)  # (36, cells, C)
            given = _along_both(forth, seen).view_as(seen)  # (36, cells, C)
            to = out[some, lines]
            for block, its, plus in zip(filters, to.chunk(blocks, -1), bias.chunk(blocks), strict=True):
                products = torch.bmm(given, block)  # (36, cells, o)
                made = _along_both(back, products).view(
                    CELL, CELL, *to.shape[:2], columns, -1
                )  # (4, 4, b, rows, columns, o)
                torch.add(made.permute(2, 3, 0, 4, 1, 5), plus, out=its)
    out = out.view(b, rows * CELL, columns * CELL, -1)[:, :h, :w]  # (B, H, W, O)
    return out.contiguous().permute(0, 3, 1, 2)


def _cells(x: Tensor) -> tuple[int, int]:
    """The number of cells, down and across."""
    return -(-x.shape[2] // CELL), -(-x.shape[3] // CELL)


def _seen(x: Tensor, top: int, end: int, columns: int) -> Tensor:
    """The inputs of the cells in these rows of cells: (36, cells, C)."""
    h, w = x.shape[2:]
    first, last = CELL * top - 1, CELL * end + 1
    border = (1, CELL * columns + 1 - w, max(-first, 0), max(last - h, 0))
    part = F.pad(x[:, :, max(first, 0) : last], border)  # (b, C, 4 rows + 2, 4 columns + 2)
    cells = part.unfold(2, SEEN, CELL).unfold(3, SEEN, CELL)  # (b, C, rows, columns, 6, 6)
    return cells.permute(4, 5, 0, 2, 3, 1).reshape(SEEN * SEEN, -1, x.shape[1])


def _transformed(weight: Tensor) -> Tensor:
    """The transformed filters: (O, C, 3, 3) -> (36, C, O)."""
    taps = weight.permute(0, 2, 3, 1).flatten(1, 2)  # (O, 9, C)
    return torch.matmul(_matrices()[1], taps).permute(1, 2, 0)


def _along_both(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix (M, N) applied to both sides of cells x (N * N, ...): (M, M, the rest flattened)."""
    m, n = matrix.shape
    return torch.matmul(matrix, (matrix @ x.reshape(n, -1)).view(m, n, -1))


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """The paper's Bᵀ (6, 6) for inputs, G for filters, for both sides at once (36, 9), and Aᵀ (4, 6) for
    outputs, by the Toom-Cook construction.
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
