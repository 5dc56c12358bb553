"""A model's three networks, and how much of them is on the device at a time.

`full`: all of them. `offload`: the one that is running. `sequential`: the layer that is running. Offloaded
weights stay in the model's memory-mapped files and are read again when needed, on a CPU as on an accelerator.
Every mode computes the same numbers.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import nn

from core.errors import UserError
from core.memory import free_memory, is_out_of_memory, release_memory, trim_memory
from core.models.build import Coder
from core.models.clip import CLIPTextEncoder
from core.models.unet import UNet
from core.weights.parts import StoredNetwork

log = logging.getLogger(__name__)

Memory = Literal["full", "offload", "sequential"]
MODES: tuple[Memory, ...] = get_args(Memory)  # each takes less memory than the one before
# A model needs 1.5 times the size of its weights to make images of its default size: docs/benchmarks.md.
ROOM = 1.5

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


def find_memory(name: str | None) -> Memory | None:
    """The mode of that name; None leaves the choice to `Networks`. Raises UserError."""
    for mode in MODES:
        if mode == name:
            return mode
    if name is None:
        return None
    raise UserError(f"memory {name!r} is not known; known are {', '.join(MODES)}.")


class Networks:
    """Text encoder, VAE and UNet of a model, called by `run`, one call at a time when offloaded.

    memory: the requested mode; when None the first that fits in memory. `chosen` is the result, `words` say
    why. `mode` is the current one: when memory runs out it becomes the next smaller one, until `restore`.
    Raises UserError for weights that are NaN or infinite.
    """

    def __init__(
        self,
        text_encoder: StoredNetwork[CLIPTextEncoder],
        vae: StoredNetwork[Coder],
        unet: StoredNetwork[UNet],
        device: torch.device,
        memory: Memory | None = None,
    ) -> None:
        self.text_encoder, self.vae, self.unet, self.device = text_encoder, vae, unet, device
        self._all: list[StoredNetwork[Any]] = [text_encoder, vae, unet]
        self._changed = threading.Condition()
        self._working: list[StoredNetwork[Any]] = []
        sizes = [part.nbytes for part in self._all]
        self.chosen, self.words = choose_mode(memory, sum(sizes), max(sizes), free_memory(device))
        self.mode: Memory = self.chosen
        for part in self._all:
            part.read() if self.chosen == "full" else part.check()

    def run(self, part: StoredNetwork[M], do: Callable[[M], T]) -> T:
        """Call `do` with a network, loaded if needed. When memory runs out, try again in the next smaller
        mode; raises UserError if that is not enough either.
        """
        mode = self.mode
        try:
            return self._run(part, do)
        except _TooLittle:
            if not self._shrink(mode):
                raise self.too_little() from None
        with self.in_words():
            return self._run(part, do)

    def _run(self, part: StoredNetwork[M], do: Callable[[M], T]) -> T:
        """One attempt. Raises _TooLittle, which unlike the original error holds no tensors of its frames."""
        try:
            with self.at_work(part) as network:
                return do(network)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        raise _TooLittle

    @contextlib.contextmanager
    def in_words(self) -> Generator[None]:
        """Turn an out-of-memory error inside into a UserError."""
        try:
            yield
            return
        except Exception as error:
            if not isinstance(error, _TooLittle) and not is_out_of_memory(error):
                raise
        raise self.too_little()

    @contextlib.contextmanager
    def at_work(self, part: StoredNetwork[M]) -> Generator[M]:
        """A network that stays loaded until the `with` ends. Raises UserError."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room_for(part))
            self._bring(part)
            self._working.append(part)
        try:
            yield part.module
        finally:
            with self._changed:
                self._working.remove(part)
                self._changed.notify_all()

    def look(self, part: StoredNetwork[M]) -> M:
        """The network itself, whose weights stay loaded until another network replaces them."""
        with self.at_work(part) as network:
            return network

    def restore(self) -> None:
        """Back to the chosen mode; missing weights are read when they are next needed."""
        with self._changed:
            if self.mode != self.chosen and not self._working:
                self._change(self.chosen)

    @property
    def shrunk(self) -> str:
        """A message if the current mode is not the chosen one; else empty."""
        return "" if self.mode == self.chosen else f"out of memory: continued with memory {self.mode}"

    def too_little(self) -> UserError:
        """The error when memory runs out."""
        smaller = MODES[MODES.index(self.mode) + 1 :]
        more = f", or --memory {smaller[-1]}" if smaller else ""
        return UserError(
            f"There is not enough memory on {self.device} for this with memory {self.mode}: try a smaller "
            f"size or batch{more}."
        )

    def _has_room_for(self, part: StoredNetwork[Any]) -> bool:
        """Whether `part` may run now: a network that would be offloaded for it must not be running."""
        if self.mode == "full":
            return True
        return not self._working or (self.mode == "offload" and set(self._working) == {part})

    def _bring(self, part: StoredNetwork[Any]) -> None:
        if part.present:
            return
        if self.mode == "sequential":
            part.read_by_layer()
            return
        if self.mode == "offload":
            self._let_go()
        part.read()

    def _let_go(self) -> None:
        for part in self._all:
            if part.present:
                part.let_go()
        trim_memory()

    def _shrink(self, mode: Memory) -> bool:
        """Change to the mode after `mode`; False if there is none."""
        smaller = MODES[MODES.index(mode) + 1 :]
        if not smaller:
            return False
        with self._changed:
            self._changed.wait_for(lambda: not self._working)
            if self.mode == mode:  # another run may have done this already
                self._change(smaller[0])
                log.warning("out of memory on %s: continuing with memory %s", self.device, self.mode)
        release_memory()
        return True

    def _change(self, mode: Memory) -> None:
        self._let_go()
        self.mode = mode


class _TooLittle(Exception):
    """Out of memory."""


def choose_mode(asked: Memory | None, whole: int, largest: int, free: int | None) -> tuple[Memory, str]:
    """A mode, and why. whole, largest: bytes of all weights, and of those of the largest network."""
    if asked is not None:
        return asked, f"{asked}, as requested"
    if free is None or ROOM * whole <= free:
        return "full", "full, as enough memory is free"
    mode: Memory = "offload" if ROOM * largest <= free else "sequential"
    return mode, f"{mode}, as {ROOM * whole / 2**30:.1f} GB would be needed and {free / 2**30:.1f} are free"
