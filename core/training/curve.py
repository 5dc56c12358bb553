"""The loss of a stage as a picture: what it was at each step, and what was measured on held-out data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from core.training.samples import png

WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 34
_INK, _GREY, _LOSS, _TEST = (40, 44, 52), (222, 225, 230), (46, 108, 196), (214, 96, 28)

Curve = Sequence[tuple[float, float]]


def loss_curve(title: str, lines: Sequence[Mapping[str, float]]) -> bytes | None:
    """A PNG with the losses in a log (as `Log` writes it), on a logarithmic scale; None without any."""
    loss = [(line["step"], line["loss"]) for line in lines if line.get("loss", 0) > 0]
    test = [(line["step"], line["test_loss"]) for line in lines if line.get("test_loss", 0) > 0]
    if not loss and not test:
        return None
    logs = [math.log10(value) for _, value in (*loss, *test)]
    low, high = min(logs), max(logs)
    if high - low < 0.1:
        low, high = low - 0.05, high + 0.05
    last = max(step for step, _ in (*loss, *test))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _LEFT + point[0] / last * (WIDTH - _LEFT - _RIGHT)
        y = _TOP + (high - math.log10(point[1])) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        return x, y

    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    for i in range(5):
        value = 10 ** (low + (high - low) * i / 4)
        _, y = place((0, value))
        pen.line((_LEFT, y, WIDTH - _RIGHT, y), fill=_GREY)
        pen.text((8, y - 6), f"{value:.3g}", fill=_INK)
    for i in range(5):
        x, _ = place((last * i / 4, 10**low))
        pen.text((x - 10, HEIGHT - _BOTTOM + 8), f"{last * i / 4:.0f}", fill=_INK)
    pen.line([place(point) for point in loss], fill=_LOSS, width=2)
    if test:
        pen.line([place(point) for point in test], fill=_TEST, width=2)
        for x, y in map(place, test):
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_TEST)
    pen.text((_LEFT, 8), f"{title}: loss by step", fill=_LOSS)
    if test:
        pen.text((_LEFT + 220, 8), "on held-out data, averaged weights", fill=_TEST)
    return png(image)
