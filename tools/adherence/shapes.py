"""Reads a picture of shapes on a background, by its pixels alone and without knowing what was asked.

Colours are found first (of the paper along the picture's edge, of the things in flat areas), every pixel is
given to one of them, and each connected region that is not paper is a thing: its colour is that of its core,
its kind the drawn form that covers its outline best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from core.scenes.drawing import OUTLINES
from tools.adherence.regions import (
    Color,
    Labels,
    Mask,
    Pixels,
    distance,
    extent,
    filled,
    grow,
    name_of,
    regions,
    shrink,
)

SMALLEST = 60
"""Pixels: the smallest thing that is drawn has 150, what is smaller is a fault and not a thing."""
CLOSE = 28
"""Of the 0..255 cube: pixels nearer than this to a colour have it."""
APART = 44
"""Colours of the palette are no nearer to each other (as drawn: 59, and a few less by chance of shade)."""
FAINTEST = 0.08
"""Of the picture's edge: what is not of the commonest colour is a pattern when it is more than this."""
FEWEST, MOST_COLORS = 10, 7
"""A colour of the palette has so many flat pixels; a palette has not more colours than this."""
WORST_FIT = 0.72
"""A region that no form covers better than this is of no kind."""
LONGEST_DOT = 20
"""Pixels: dots are drawn 9 wide with 9 between them; stripes run on."""
LIGHT = 430
"""Sum of a colour's channels above which its shade is drawn darker."""
SCRAP = 130
"""Pixels: what is smaller (dots have 64) and of the paper's colours is a bit of its pattern."""
HOLE = 0.12
"""A disc of which more than this is paper is a ring (as drawn: 0.38)."""


@dataclass(frozen=True)
class Paper:
    """The background: its colour's name, its pattern, and that one's colour (None: a shade of the same).

    either: the two colours share it so evenly that each may be called the background.
    """

    color: str
    pattern: str
    ink: str | None
    either: bool = False


@dataclass(frozen=True)
class Seen:
    """One thing: names of colour and kind ("" for none), centre and area in pixels, how well it fits."""

    color: str
    kind: str
    x: float
    y: float
    area: int
    fit: float


@dataclass(frozen=True)
class Reading:
    paper: Paper
    things: tuple[Seen, ...]


def read_shapes(pixels: Pixels) -> Reading:
    """What (128, 128, 3) pixels show; things from the largest to the smallest."""
    paper = _paper_colors(pixels)
    palette, labels = _segment(pixels, paper)
    things = [
        region
        for label in range(len(paper), len(palette))
        for region in _whole(regions(labels == label, SMALLEST))
    ]
    things.sort(key=lambda region: -int(region.sum()))
    things = [region for region in things if not _is_fringe(pixels, region, things, paper)]
    things = [region for region in things if not _is_scrap(pixels, region, paper)]
    seen = tuple(_thing(pixels, region, things) for region in things)
    return Reading(_paper(paper, labels), seen)


# ---------------------------------------------------------------- colours


def _paper_colors(pixels: Pixels) -> list[Color]:
    """The one or two colours along the edge, where hardly any thing reaches; the commoner first."""
    frame = np.pad(np.zeros((118, 118), bool), 4, constant_values=True)
    frame = np.pad(frame, 1)
    edge = pixels[frame]
    first, _ = _commonest(edge)
    gaps = distance(edge, first)
    rest = gaps > CLOSE
    if rest.mean() < FAINTEST:
        return [first]
    # What differs most, for what differs less is the soft edge between the two.
    second, count = _commonest(edge[gaps > 0.75 * np.quantile(gaps[rest], 0.85)])
    return [first, second] if count >= FAINTEST / 3 * len(edge) else [first]


def _commonest(colors: Pixels) -> tuple[Color, int]:
    """The colour with most others close to it, as their median, and how many these are."""
    candidates = colors[:: max(1, len(colors) // 60)]
    close = np.stack([distance(colors, color) < 20 for color in candidates])
    best = close[int(close.sum(1).argmax())]
    return np.median(colors[best], axis=0).astype(np.float32), int(best.sum())


def _segment(pixels: Pixels, paper: list[Color]) -> tuple[list[Color], Labels]:
    """The palette (the paper's colours first) and, for each pixel, its place in it.

    A pixel on an edge mixes two colours and may look like a third: it neither adds to the palette nor takes a
    colour that it only has by mixture.
    """
    flat = _flat(pixels)
    palette = list(paper)
    gaps = [distance(pixels, color) for color in palette]
    while len(palette) < MOST_COLORS:
        apart = flat & (np.minimum.reduce(gaps) > APART) & ~_edges(pixels, palette, gaps)
        if not apart.any():
            break
        color, count = _commonest(pixels[apart])
        if count < FEWEST:
            break
        palette.append(color)
        gaps.append(distance(pixels, color))
    return palette, _assign(pixels, palette, gaps)


def _assign(pixels: Pixels, palette: list[Color], gaps: list[NDArray[np.float32]]) -> Labels:
    """Each pixel's nearest colour among those that lie within four pixels of it, not only by mixture."""
    limited = []
    for label, gap in enumerate(gaps):
        others = [k for k in range(len(palette)) if k != label]
        close = gap < CLOSE
        mixed = _edges(pixels, [palette[k] for k in others], [gaps[k] for k in others])
        at_hand = grow((close & ~mixed) | (grow(shrink(close)) & close), 4)
        limited.append(np.where(at_hand, gap, gap + 1000))
    labels: Labels = np.stack(limited).argmin(0)
    return labels


def _edges(pixels: Pixels, palette: list[Color], gaps: list[NDArray[np.float32]]) -> Mask:
    """Where a pixel lies within three of two palette colours and between them in brightness and in hue."""
    near = [grow(gap < CLOSE, 5) for gap in gaps]
    found = np.zeros(pixels.shape[:2], bool)
    for first, second in combinations(range(len(palette)), 2):
        both = near[first] & near[second]
        found[both] |= _between(pixels[both], palette[first], palette[second])
    return found


def _between(colors: Pixels, one: Color, other: Color) -> Mask:
    """Which colours mix these two, perhaps more of one in brightness and more of the other in hue."""
    grays, gray, end = (c.mean(-1, keepdims=True) for c in (colors, one, other))
    low, high = np.minimum(gray, end) - CLOSE, np.maximum(gray, end) + CLOSE
    hues, hue, line = colors - grays, one - gray, (other - end) - (one - gray)
    share = ((hues - hue) @ line / max(1.0, float(line @ line))).clip(0, 1)
    aside = np.linalg.norm(hues - hue - share[:, None] * line, axis=-1)
    return np.asarray(((grays > low) & (grays < high))[:, 0] & (aside < CLOSE))


def _flat(pixels: Pixels) -> Mask:
    """Where a pixel and its four neighbours differ by less than 40 in every channel; not at the very edge."""
    inner = pixels[1:-1, 1:-1]
    cross = np.stack([inner, pixels[:-2, 1:-1], pixels[2:, 1:-1], pixels[1:-1, :-2], pixels[1:-1, 2:]])
    return np.pad((np.ptp(cross, axis=0) < 40).all(-1), 1)


# ---------------------------------------------------------------- background


def _paper(colors: list[Color], labels: Labels) -> Paper:
    if len(colors) == 1:
        return Paper(name_of(colors[0]), "plain", None)
    minor = int((labels == 1).sum() < (labels == 0).sum())
    pieces = regions(labels == minor, 12)
    lengths = np.repeat([max(extent(piece)) for piece in pieces], [int(piece.sum()) for piece in pieces])
    dotted = not len(lengths) or np.median(lengths) <= LONGEST_DOT
    # Dots, upright and level stripes cover less than half. Slanted stripes and what is between them are about
    # equal: a shade of the other colour is the stripe, and of two colours either may be.
    even = not dotted and not _straight(labels)
    shaded = [_is_shade(colors[k], colors[1 - k]) for k in (0, 1)]
    ink = shaded.index(True) if even and sum(shaded) == 1 else minor
    name = None if shaded[ink] else name_of(colors[ink])
    return Paper(name_of(colors[1 - ink]), "dotted" if dotted else "striped", name, even and name is not None)


def _straight(labels: Labels) -> bool:
    """Whether stripes are upright or level: whole columns or rows then have one colour."""
    ink = np.where(labels < 2, labels, np.nan)
    for turned in (ink, ink.T):
        means = [np.nanmean(row) for row in turned if np.isfinite(row).any()]
        if np.std(means) > 0.25:
            return True
    return False


def _is_shade(ink: Color, paper: Color) -> bool:
    """Whether a pattern's colour is its paper's shade: a lighter one, of light colours a darker one."""
    darker, lighter = paper * np.float32(0.79), paper + (255 - paper) * np.float32(0.26)
    light = float(paper.sum())
    if light > LIGHT - 60 and distance(ink, darker) < 30:
        return True
    return light < LIGHT + 60 and bool(distance(ink, lighter) < 30)


# ---------------------------------------------------------------- things


def _is_fringe(pixels: Pixels, region: Mask, things: list[Mask], paper: list[Color]) -> bool:
    """Whether it is but the soft edge of a thing: narrow, along it, of a colour between it and the paper."""
    if shrink(region).sum() > 0.5 * region.sum():
        return False
    rim = grow(region) & ~region
    color = np.median(pixels[region], axis=0).astype(np.float32)[None]
    for other in things:
        if other is not region and (rim & other).sum() > 0.2 * rim.sum():
            edge = np.median(pixels[other], axis=0).astype(np.float32)
            if any(_between(color, edge, ground)[0] for ground in paper):
                return True
    return False


def _is_scrap(pixels: Pixels, region: Mask, paper: list[Color]) -> bool:
    """Whether it is but a bit of a pattern that came out uneven: small or shapeless, and of its colours."""
    if region.sum() > SCRAP and best_kind(filled(region))[0]:
        return False
    color = np.median(pixels[region], axis=0).astype(np.float32)
    mixed = len(paper) == 2 and bool(_between(color[None], paper[0], paper[1])[0])
    return mixed or name_of(color) in [name_of(ground) for ground in paper]


def _whole(pieces: list[Mask]) -> list[Mask]:
    """Regions of one colour; those within another's outline join it (what a ring on a thing cuts off)."""
    pieces = sorted(pieces, key=lambda piece: -int(piece.sum()))
    whole: list[Mask] = []
    for piece in pieces:
        around = [k for k, other in enumerate(whole) if (filled(other) & piece).any()]
        if around:
            whole[around[0]] = whole[around[0]] | piece
        else:
            whole.append(piece)
    return whole


def _thing(pixels: Pixels, region: Mask, things: list[Mask]) -> Seen:
    outline = filled(region)
    inner = [other for other in things if other is not region and (outline & other).sum() > 0.9 * other.sum()]
    hole = float((outline & ~np.logical_or.reduce([region, *inner])).sum() / outline.sum())
    kind, fit = best_kind(outline)
    if kind == "circle" and hole > HOLE:
        kind = "ring"
    elif hole > HOLE:
        kind = ""
    color = _color_of(pixels, region)
    rows, columns = np.nonzero(region)
    return Seen(name_of(color), kind, float(columns.mean()), float(rows.mean()), int(region.sum()), fit)


def _color_of(pixels: Pixels, region: Mask) -> Color:
    """The colour of a region where it differs most from what is around: narrow things are soft all over."""
    beyond = grow(region, 3) & ~grow(region)
    around = np.median(pixels[beyond if beyond.any() else region], axis=0)
    core = shrink(region)
    inner = pixels[core if core.sum() >= 8 else region]
    gaps = distance(inner, around)
    color: Color = np.median(inner[gaps >= np.median(gaps)], axis=0).astype(np.float32)
    return color


_SIDE = 40
_REACH = 2.2
"""A form is compared in a square of this many times its spread (the root of its mean squared radius)."""


def best_kind(outline: Mask) -> tuple[str, float]:
    """The kind whose form overlaps best (intersection over union), and how well; "" when none does well."""
    form = _normal(outline.astype(np.float32))
    kinds, forms = _forms()
    both = np.minimum(form, forms).sum((1, 2))
    either = np.maximum(form, forms).sum((1, 2))
    fits = both / either
    best = int(fits.argmax())
    return (kinds[best] if fits[best] >= WORST_FIT else ""), float(fits[best])


def _normal(form: NDArray[np.float32]) -> NDArray[np.float32]:
    """`form` moved and scaled to a common centre and spread, (_SIDE, _SIDE)."""
    height, width = form.shape
    total = form.sum()
    y = (form.sum(1) @ np.arange(height)) / total
    x = (form.sum(0) @ np.arange(width)) / total
    squares = (np.arange(height)[:, None] - y) ** 2 + (np.arange(width) - x) ** 2
    step = 2 * _REACH * math.sqrt(float((form * squares).sum() / total)) / _SIDE
    left, top = x + 0.5 - step * _SIDE / 2, y + 0.5 - step * _SIDE / 2
    image = Image.fromarray(form * 255)
    moved = image.transform(
        (_SIDE, _SIDE), Image.Transform.AFFINE, (step, 0, left, 0, step, top), Image.Resampling.BILINEAR
    )
    return np.divide(np.asarray(moved, np.float32), 255, dtype=np.float32)


@cache
def _forms() -> tuple[list[str], NDArray[np.float32]]:
    """Every kind (rings by their outline) at five angles, sharp and as a small soft thing, normalised."""
    kinds, forms = [], []
    for kind in ("circle", *OUTLINES):
        for degrees in (0,) if kind == "circle" else (-6, -3, 0, 3, 6):
            for radius, softness in ((90.0, 0.0), (11.0, 1.6)):
                kinds.append(kind)
                forms.append(_normal(_drawn(kind, math.radians(degrees), radius, softness)))
    return kinds, np.stack(forms)


def _drawn(kind: str, turn: float, radius: float, softness: float) -> NDArray[np.float32]:
    """A form of this radius in pixels, blurred by `softness` pixels and cut at the half again."""
    scale = 90 / radius
    image = Image.new("L", (240, 240))
    pen = ImageDraw.Draw(image)
    if kind == "circle":
        pen.ellipse((30, 30, 210, 210), fill=255)
    else:
        cos, sin = 90 * math.cos(turn), 90 * math.sin(turn)
        pen.polygon([(120 + u * cos - v * sin, 120 + u * sin + v * cos) for u, v in OUTLINES[kind]], fill=255)
    if softness:
        image = image.filter(ImageFilter.GaussianBlur(softness * scale))
    return (np.asarray(image, np.float32) > 127).astype(np.float32)
