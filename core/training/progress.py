"""What a training tells whoever watches it, as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """One thing that happened in the stage `stage`, when `done` of its `steps` steps were done.

    loss: that of the step just made, a scalar without gradient where the network is. figures: what was
    measured with the averaged weights. samples: a new file of pictures. A message carries one of the three.
    """

    stage: str
    done: int
    steps: int
    loss: Tensor | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    samples: Path | None = None


Watch = Callable[[TrainingProgress], None]
"""Called on the training's own thread, which waits for it: it should be quick, and must not raise."""
