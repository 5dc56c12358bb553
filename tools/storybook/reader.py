"""A small network that reads storybook pictures: what is in each cell, the place, and the hour.

It is trained on drawn images alone, which are blurred and noised so that it also reads what a model paints.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from core.scenes.backdrops import HOURS, PLACES
from core.scenes.painter import Painter
from core.scenes.scene import COLORS, SHAPE_KINDS
from core.scenes.storybook_scene import CELLS, StorybookSpec, kinds, sample
from core.training.muon import Muon
from core.training.training_loop import mixed_precision

SIDE = 128
THINGS = (*kinds(), *SHAPE_KINDS)
GROUNDS = (*PLACES, *COLORS)
NOTHING = len(THINGS)
STEPS, BATCH, RATE = 1200, 48, 4e-3
LEAST = 1.0  # cells of a thing: fewer are none


class Network(nn.Module):
    """Pictures (B, 3, 128, 128) in [-1, 1] to logits: of the thing in each cell, the ground and the hour."""

    def __init__(self, width: int = 160) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, width)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for b in widths[1:])
        self.wide = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.after = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(3))
        self.things = nn.Conv2d(width, len(THINGS) + 1, 1)
        self.ground, self.hour = nn.Linear(width, len(GROUNDS)), nn.Linear(width, len(HOURS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for layer, norm in zip(self.down, self.norms, strict=True):
            x = F.silu(norm(layer(x)))
        for layer, norm in zip(self.wide, self.after, strict=True):
            x = x + F.silu(norm(layer(x)))
        mean = x.mean((2, 3))
        return self.things(x), self.ground(mean), self.hour(mean)


@dataclass(frozen=True)
class Reading:
    """cells: of each of THINGS, how many cells it fills, and `at` where their middle is, (column, row)."""

    cells: np.ndarray
    at: np.ndarray
    ground: str
    hour: str

    def found(self, count: int) -> list[str]:
        """The `count` things that fill most."""
        order = np.argsort(-self.cells)[:count]
        return [THINGS[i] for i in order if self.cells[i] >= LEAST]

    def middle(self, thing: str) -> tuple[float, float]:
        """Where it is."""
        column, row = self.at[THINGS.index(thing)]
        return float(column), float(row)


def targets(spec: StorybookSpec) -> np.ndarray:
    """The thing in each cell, (8, 8)."""
    cells = np.full((CELLS, CELLS), NOTHING)
    for item in spec.items:
        place = (slice(item.row, item.row + item.size), slice(item.column, item.column + item.size))
        cells[place] = THINGS.index(item.kind)
    return cells


def _batch(painter: Painter, rng: random.Random, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    specs = [sample(rng) for _ in range(count)]
    pictures = torch.from_numpy(np.stack([painter.paint(spec) for spec in specs])).permute(0, 3, 1, 2) * 2 - 1
    things = torch.from_numpy(np.stack([targets(spec) for spec in specs]))
    grounds = torch.tensor([GROUNDS.index(spec.ground) for spec in specs])
    hours = torch.tensor([HOURS.index(spec.hour) if spec.hour else -100 for spec in specs])
    return _worn(pictures, rng), things, grounds, hours


def _worn(pictures: Tensor, rng: random.Random) -> Tensor:
    """Some blurred, all with a little noise, each by another amount."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    small = F.interpolate(pictures, scale_factor=rng.choice((0.35, 0.5, 0.7)), mode="area")
    blurred = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
    part = torch.rand(len(pictures), 1, 1, 1, generator=generator).round()
    noise = torch.randn(pictures.shape, generator=generator)
    amount = torch.rand(len(pictures), 1, 1, 1, generator=generator) * 0.15
    return pictures * (1 - part) + blurred * part + noise * amount


def trained(steps: int = STEPS, seed: int = 0) -> Network:
    """A reader, in about seven minutes of one core with bfloat16."""
    torch.manual_seed(seed)
    network, painter, rng = Network(), Painter(SIDE // CELLS), random.Random(f"reader {seed}")
    network.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    optimizer = Muon(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    for _ in range(steps):
        pictures, things, grounds, hours = _batch(painter, rng, BATCH)
        with mixed_precision(network):
            found, ground, hour = network(pictures.contiguous(memory_format=torch.channels_last))
        loss = (
            F.cross_entropy(found.float(), things)
            + 0.1 * F.cross_entropy(ground.float(), grounds)
            + 0.1 * F.cross_entropy(hour.float(), hours, ignore_index=-100)
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return network.eval()


@cache
def reader(path: str = "") -> Network:
    """The reader; from a file where there is one, else trained, and then kept there."""
    file = Path(path) if path else None
    network = Network().eval()
    if file is not None and file.exists():
        network.load_state_dict(torch.load(file, weights_only=True))
        return network
    network = trained()
    if file is not None:
        torch.save(network.state_dict(), file)
    return network


@torch.no_grad()
def read(network: Network, images: Sequence[Image.Image]) -> list[Reading]:
    """What is in these pictures."""
    small = [np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images]
    pictures = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1
    found, ground, hour = network(pictures)
    shares = found.softmax(1)[:, :NOTHING].numpy()
    columns, rows = np.meshgrid(np.arange(CELLS) + 0.5, np.arange(CELLS) + 0.5)
    readings = []
    for each, place, time in zip(shares, ground.argmax(1), hour.argmax(1), strict=True):
        cells = each.sum((1, 2))
        at = np.stack([(each * axis).sum((1, 2)) / (cells + 1e-9) for axis in (columns, rows)], 1)
        readings.append(Reading(cells, at, GROUNDS[int(place)], HOURS[int(time)]))
    return readings
