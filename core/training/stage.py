"""The interface between the training loop and a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

if TYPE_CHECKING:
    from PIL import Image


T = TypeVar("T")


class Stage(Protocol):
    """A part that the loop trains. `modules` are saved; `loss` and `measure` use them in place."""

    name: str
    modules: nn.Module

    def loss(self, step: int) -> Tensor:
        """The loss of step `step`, a scalar to backpropagate from."""

    def measure(self) -> Mapping[str, float]:
        """Figures for the log; called with the averaged weights in place."""


@runtime_checkable
class Drawing(Protocol):
    """A stage that can show what it has learned."""

    def sample(self) -> list[Image.Image]:
        """Images with the current weights, from the same noise each time; empty if it cannot draw."""
