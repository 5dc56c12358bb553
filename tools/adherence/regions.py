"""Small tools on masks and colours, in plain numpy: connected regions, growing, shrinking, colour names."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.scenes.scene import COLORS

Pixels: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Labels: TypeAlias = NDArray[np.int64]
Color: TypeAlias = NDArray[np.float32]

NAMES = tuple(COLORS)


def distance(pixels: Pixels, color: Color) -> NDArray[np.float32]:
    """How far each pixel is from `color`, in units of the 0..255 cube."""
    difference = pixels - color
    result: NDArray[np.float32] = np.sqrt(np.einsum("...c,...c->...", difference, difference))
    return result


def grow(mask: Mask, times: int = 1) -> Mask:
    """`mask` and, `times` over, the four neighbours of what is in it."""
    for _ in range(times):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask


def shrink(mask: Mask, times: int = 1) -> Mask:
    """The pixels whose four neighbours are in `mask` as well; beyond the picture everything is."""
    return ~grow(~mask, times)


def components(mask: Mask) -> Labels:
    """A number from 1 for each four-connected region of `mask`, the same all over it; 0 elsewhere.

    Rows are cut into runs, and runs that touch one in the next row are joined.
    """
    wide = np.pad(mask, ((0, 0), (0, 1)))
    row = wide.shape[1]
    edges = np.diff(np.concatenate([[0], wide.ravel().view(np.int8)]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    first = np.searchsorted(stops, starts + row, "right")
    last = np.searchsorted(starts, stops + row, "left")
    parents = list(range(len(starts)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    for run, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for other in range(low, high):
            parents[root(other)] = root(run)
    numbers = np.array([root(run) + 1 for run in parents], np.int64)
    labels = np.zeros(wide.size, np.int64)
    labels[wide.ravel()] = np.repeat(numbers, stops - starts)
    return labels.reshape(wide.shape)[:, :-1]


def regions(mask: Mask, smallest: int = 1) -> list[Mask]:
    """The connected regions of `mask` with at least `smallest` pixels."""
    labels = components(mask)
    numbers, areas = np.unique(labels[mask], return_counts=True)
    return [labels == number for number, area in zip(numbers, areas, strict=True) if area >= smallest]


def filled(mask: Mask) -> Mask:
    """`mask` with its holes: all that cannot be reached from the picture's edge."""
    outside = components(np.pad(~mask, 1, constant_values=True))
    inside: Mask = (outside != outside[0, 0])[1:-1, 1:-1]
    return inside


def extent(mask: Mask) -> tuple[int, int]:
    """Height and width of the smallest box around `mask`."""
    rows, columns = np.nonzero(mask)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


# ---------------------------------------------------------------- colour names


def lab(colors: NDArray[np.float32]) -> NDArray[np.float32]:
    """CIE L*a*b* (D65) of sRGB colours 0..255, any shape (..., 3): distances as the eye sees them."""
    c = np.asarray(colors, np.float64) / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(np.float32)


_NAMED = lab(np.array(list(COLORS.values()), np.float32))


def names_of(colors: NDArray[np.float32]) -> NDArray[np.int64]:
    """The index in NAMES of the named colour nearest to each of (..., 3) colours, to within a few shades."""
    cells = (np.asarray(colors) / 8).astype(np.int64).clip(0, 31)
    names: NDArray[np.int64] = _name_table()[cells[..., 0], cells[..., 1], cells[..., 2]]
    return names


def name_of(color: Color) -> str:
    """The name of the nearest named colour."""
    return NAMES[int(_nearest_names(color))]


def _nearest_names(colors: NDArray[np.float32]) -> NDArray[np.int64]:
    gaps = lab(colors)[..., None, :] - _NAMED
    nearest: NDArray[np.int64] = np.einsum("...c,...c->...", gaps, gaps).argmin(-1)
    return nearest


@cache
def _name_table() -> NDArray[np.int64]:
    """The nearest name for each of 32 x 32 x 32 cells of the colour cube."""
    steps = np.arange(32, dtype=np.float32) * 8 + 4
    return _nearest_names(np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1))
