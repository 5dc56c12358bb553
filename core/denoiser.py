"""A network, its prediction type and guidance, as the `denoise(x, sigma)` that samplers call."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from core.errors import Cancelled
from core.guidance import guide
from core.schedule import NoiseSchedule

Prediction = Literal["epsilon", "v", "x0"]


class Network(Protocol):
    def __call__(self, x: Tensor, timestep: Tensor, context: Tensor, /) -> Tensor:
        """From x (B, C, h, w), timestep (B,) float32 and context (B, T, D) to a prediction (B, C, h, w)."""
        ...


@dataclass(frozen=True, eq=False)
class Estimate:
    """The clean estimates (B, C, h, w) of one evaluation; no unconditional one when guidance is off."""

    conditional: Tensor
    unconditional: Tensor | None
    guided: Tensor


class Denoiser:
    """Turns a network into `denoise(x, sigma) -> x0` and keeps count.

    conditional, unconditional: text states (B, T, D), or (1, T, D) for one text over the whole batch. The
    unconditional ones are not needed when `cfg_scale` is 1: then the network runs on the conditional half
    alone. `unconditional` is afterwards that of the last call, or what the call returned where it had none.
    cancel: when this event is set, the next evaluation raises Cancelled.
    dtype: of the network; the sampler's state stays as it is.
    """

    def __init__(
        self,
        network: Network,
        noise_schedule: NoiseSchedule,
        *,
        prediction: Prediction,
        conditional: Tensor,
        unconditional: Tensor | None,
        cfg_scale: float,
        cancel: threading.Event | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if prediction not in ("epsilon", "v", "x0"):
            raise ValueError(f"a network predicts epsilon, v or x0, not {prediction!r}")
        self.contexts = [conditional.to(dtype)]
        if cfg_scale != 1:
            if unconditional is None or unconditional.shape[1:] != conditional.shape[1:]:
                raise ValueError("guidance needs unconditional text states shaped like the conditional ones")
            self.contexts.append(unconditional.to(dtype))
        self.network, self.noise_schedule, self.prediction = network, noise_schedule, prediction
        self.cfg_scale, self.cancel, self.dtype = cfg_scale, cancel, dtype
        self.evals = 0
        self.estimates: list[Estimate] = []  # since the caller last cleared it
        self.unconditional: Tensor  # from the first call on

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided clean estimate in x (B, C, h, w) at noise level `sigma`, of x's shape and dtype."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("the run was stopped")
        clean = [self._clean(x, output.to(x.dtype), sigma) for output in self._outputs(x, sigma)]
        unconditional = clean[1] if len(clean) == 2 else None
        guided = clean[0] if unconditional is None else guide(clean[0], unconditional, self.cfg_scale)
        self.evals += 1
        self.estimates.append(Estimate(clean[0], unconditional, guided))
        self.unconditional = guided if unconditional is None else unconditional
        return guided

    def _outputs(self, x: Tensor, sigma: float) -> list[Tensor]:
        """What the network says: conditional (B, C, h, w), and unconditional when there is guidance."""
        batch = x.shape[0]
        scaled = (x / math.sqrt(1 + sigma**2)).to(self.dtype)  # the DDPM state, of unit variance
        timestep = self.noise_schedule.timestep(sigma)
        contexts = [context.expand(batch, -1, -1) for context in self.contexts]
        # On the CPU the kernels, and with them the last bits, change with the batch size. One image at a time
        # costs little there and makes image i of a batch the picture that its seed gives alone.
        size = 1 if x.device.type == "cpu" else batch
        pieces = [self._evaluate(scaled, timestep, contexts, i, i + size) for i in range(0, batch, size)]
        return [torch.cat(outputs) for outputs in zip(*pieces, strict=True)]

    def _evaluate(
        self, scaled: Tensor, timestep: float, contexts: list[Tensor], first: int, end: int
    ) -> tuple[Tensor, ...]:
        """Images `first` to `end` under every context, in one call of the network."""
        count = len(contexts)
        x = torch.cat([scaled[first:end]] * count)  # (count * images, C, h, w)
        times = torch.full((x.shape[0],), timestep, dtype=torch.float32, device=x.device)
        context = torch.cat([context[first:end] for context in contexts])  # (count * images, T, D)
        return self.network(x, times, context).chunk(count)

    def _clean(self, x: Tensor, output: Tensor, sigma: float) -> Tensor:
        """The clean estimate that a prediction stands for."""
        if self.prediction == "epsilon":
            return x - sigma * output
        if self.prediction == "v":  # v = sqrt(a) eps - sqrt(1 - a) x0: Salimans and Ho 2022, arXiv:2202.00512
            return x / (1 + sigma**2) - sigma / math.sqrt(1 + sigma**2) * output
        return output
