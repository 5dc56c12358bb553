"""How good samples are: distances between clouds of points, and a small classifier of digits."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from core.training.sets.digits import digit_set
from core.training.sets.shapes import shape_set

Cloud = NDArray[np.float64]


def sliced_wasserstein(a: Cloud, b: Cloud, slices: int = 200, seed: int = 0) -> float:
    """The mean over directions of the earth mover's distance between two clouds (N, 2) seen along them."""
    angles = np.random.default_rng(seed).uniform(0, np.pi, slices)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    along_a, along_b = np.sort(a @ directions, axis=0), np.sort(b @ directions, axis=0)
    return float(np.abs(along_a - along_b).mean())


class Classifier(nn.Module):
    """Pictures (B, C, S, S) in [-1, 1] to logits (B, classes); `features` (B, 64) are what comes before."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(32 * 16, 64), nn.ReLU(),
        )  # fmt: skip
        self.last = nn.Linear(64, classes)

    def features(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.features(x))
        return out


def digits(seed: int, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Drawn digits (count, 1, size, size) in [-1, 1], and which they are."""
    drawn = digit_set("real", seed, count, size)
    return torch.from_numpy(drawn.stored)[:, None].float() / 127.5 - 1, torch.from_numpy(drawn.labels)


def shapes(seed: int, count: int, size: int) -> tuple[Tensor, Tensor, list[str]]:
    """Drawn shapes (count, 3, size, size) in [-1, 1], which they are, and what each of these is called."""
    drawn = shape_set("real", seed, count, size)
    pictures = torch.from_numpy(drawn.stored).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures, torch.from_numpy(drawn.labels), [names[0] for names in drawn.captions]


def trained_classifier(pictures: Tensor, labels: Tensor, steps: int = 400) -> Classifier:
    """Trained on them: they should be of another seed than any recipe's."""
    torch.manual_seed(0)
    net = Classifier(pictures.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(steps):
        chosen = torch.randint(len(pictures), (64,))
        loss = F.cross_entropy(net(pictures[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def frechet(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of Gaussians fitted to two sets of features (N, D): arXiv:1706.08500."""
    means = [x.double().mean(0) for x in (a, b)]
    one, two = (torch.cov(x.double().T) for x in (a, b))
    values, vectors = torch.linalg.eigh(one)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ two @ root).clamp(min=0).sqrt().sum()
    return float((means[0] - means[1]).square().sum() + one.trace() + two.trace() - 2 * cross)
