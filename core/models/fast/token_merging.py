"""Token merging: similar tokens are merged before self-attention and unmerged after it.

Bolya et al. 2022, arXiv:2210.09461, as in Bolya and Hoffman 2023, arXiv:2303.17604, for latent diffusion: of
every 2x2 cells of the map one is a destination and three are sources. The sources most similar to a
destination are averaged into it; afterwards each gets the result of its destination. Attention over N tokens
costs N^2, so merging half of them leaves a quarter. The paper draws the destination at random; here it is
always the upper left one, so that a seed gives one image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Merge:
    """Selects the tokens of x (B, H * W, C), a map (H, W), to merge: `share` of them, at most the sources.

    Similarity is the cosine. Of equally good pairs the first are taken.
    """

    def __init__(self, x: Tensor, size: tuple[int, int], share: float) -> None:
        places = torch.arange(x.shape[1], device=x.device).view(size)
        self.destinations = places[::2, ::2].flatten()
        self.sources = torch.cat([places[::2, 1::2].flatten(), places[1::2].flatten()])
        count = min(int(share * x.shape[1]), len(self.sources))
        unit = F.normalize(x, dim=-1)
        alike = unit[:, self.sources] @ unit[:, self.destinations].transpose(1, 2)  # (B, sources, dest.)
        best, into = alike.max(dim=-1)
        order = best.argsort(dim=-1, descending=True, stable=True)
        self.merged, self.kept = order[:, :count], order[:, count:]  # numbers of sources
        self.into = into.gather(1, self.merged)  # numbers of destinations

    def __call__(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N - merged, C): the unmerged sources, then the destinations."""
        sources, destinations = x[:, self.sources], x[:, self.destinations]
        # The mean as a product of matrices: a scatter-add has no fixed order on a GPU.
        numbers = torch.arange(len(self.destinations), device=x.device)
        chosen = (self.into[:, None] == numbers[:, None]).to(x)  # (B, dest., merged)
        total = destinations + chosen @ _rows(sources, self.merged)
        mean = total / (1 + chosen.sum(dim=-1, keepdim=True))  # each destination counts itself
        return torch.cat([_rows(sources, self.kept), mean], dim=1)

    def undone(self, x: Tensor) -> Tensor:
        """(B, N - merged, C) -> (B, N, C): each token at its position, merged ones as their destination."""
        count = self.kept.shape[1]
        kept, destinations = x[:, :count], x[:, count:]
        out = x.new_empty(x.shape[0], len(self.sources) + len(self.destinations), x.shape[2])
        out[:, self.destinations] = destinations
        out.scatter_(1, _wide(self.sources[self.kept], x), kept)
        return out.scatter_(1, _wide(self.sources[self.merged], x), _rows(destinations, self.into))


def _wide(rows: Tensor, x: Tensor) -> Tensor:
    """Numbers of rows (B, M) for each of the channels of x: (B, M, C)."""
    return rows[:, :, None].expand(-1, -1, x.shape[2])


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    """Those rows (B, M) of x (B, N, C): (B, M, C)."""
    return x.gather(1, _wide(rows, x))
