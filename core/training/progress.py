"""Progress messages of a training run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """An event in stage `stage`, after `done` of its `steps` steps.

    loss: of the last step, a scalar without gradient on the network's device. figures: what was
    measured with the averaged weights. samples: a new file of images. A message carries one of the three.
    """

    stage: str
    done: int
    steps: int
    loss: Tensor | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    samples: Path | None = None


Watch = Callable[[TrainingProgress], None]
"""A callback on the training thread, which waits for it: it should be quick and must not raise."""
