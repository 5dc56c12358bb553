"""A network, its prediction type and guidance, as the `denoise(x, sigma)` that samplers call."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from core.errors import Cancelled
from core.sampling.feature_reuse import Savings
from core.sampling.guidance import guide, rescale
from core.sampling.schedule import NoiseSchedule

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


@dataclass(frozen=True, eq=False)
class Blend:
    """The init latents (1, C, h, w) of an inpainting run and its mask (1, 1, h, w), 1 where all is new."""

    known: Tensor
    mask: Tensor

    def __call__(self, clean: Tensor) -> Tensor:
        """Clean latents (B, C, h, w) with the init latents blended in: exactly these where the mask is 0."""
        return torch.lerp(self.known.expand_as(clean), clean, self.mask)


class Denoiser:
    """A network as `denoise(x, sigma) -> x0`, with counts of its evaluations.

    conditional, unconditional: prompt embeddings (B, T, D), or (1, T, D) for the whole batch. The
    unconditional ones are not needed when `cfg_scale` is 1: the network then runs on the conditional half
    alone. The attribute `unconditional` is the unconditional estimate of the last call, or what the call
    returned if it had no guidance. cfg_rescale, cfg_interval: see core/sampling/guidance.py. Outside of the
    interval (low, high], in noise levels, the network also runs on the conditional half alone. `evals` counts
    the calls, `passes` the halves, `reused` the passes that ran in part. blend: blends the init latents into
    every estimate. extra: channels (1, E, h, w) that the network reads with the latents: an inpainting
    network's mask and masked image. savings: runs the network approximately in place of `network`. cancel:
    when this event is set, the next evaluation raises Cancelled. dtype: of the network; the sampler's state
    keeps its own. batched: evaluate a batch in one call on a CPU too, which is faster for small networks.
    There the kernels, and with them the last bits, depend on the batch size, so by default images are
    evaluated one at a time: image i of a batch is then the image that its seed gives alone.
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
        cfg_rescale: float = 0.0,
        cfg_interval: tuple[float, float] = (0.0, math.inf),
        blend: Blend | None = None,
        extra: Tensor | None = None,
        savings: Savings | None = None,
        cancel: threading.Event | None = None,
        dtype: torch.dtype = torch.float32,
        batched: bool = False,
    ) -> None:
        if prediction not in ("epsilon", "v", "x0"):
            raise ValueError(f"a network predicts epsilon, v or x0, not {prediction!r}")
        self.contexts = [conditional.to(dtype)]
        if cfg_scale != 1:
            if unconditional is None or unconditional.shape[1:] != conditional.shape[1:]:
                raise ValueError("guidance needs unconditional prompt embeddings shaped like the conditional")
            self.contexts.append(unconditional.to(dtype))
        self.network, self.noise_schedule, self.prediction = network, noise_schedule, prediction
        self.cfg_scale, self.cfg_rescale, self.cfg_interval = cfg_scale, cfg_rescale, cfg_interval
        self.blend, self.extra = blend, None if extra is None else extra.to(dtype)
        self.savings, self.cancel, self.dtype, self.batched = savings, cancel, dtype, batched
        self.evals = self.passes = self.reused = 0
        self.estimates: list[Estimate] = []  # since the caller last cleared it
        self.unconditional: Tensor  # from the first call on

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided clean estimate in x (B, C, h, w) at noise level `sigma`, of x's shape and dtype."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("the run was stopped")
        output, *others = (output.to(x.dtype) for output in self._outputs(x, sigma))
        estimate = self._estimate(x, sigma, output, others[0] if others else None)
        self.evals += 1
        self.passes += 1 + len(others)
        if self.savings is not None and not self.savings.whole:
            self.reused += 1 + len(others)
        self.estimates.append(estimate)
        self.unconditional = estimate.guided if estimate.unconditional is None else estimate.unconditional
        return estimate.guided

    def _estimate(self, x: Tensor, sigma: float, output: Tensor, other: Tensor | None) -> Estimate:
        """The clean estimates of two predictions (B, C, h, w): `output` is conditional, `other` not."""
        conditional = self._clean(x, output, sigma)
        if other is None:
            return Estimate(conditional, None, conditional)
        unconditional = self._clean(x, other, sigma)
        if self.cfg_rescale == 0:  # guiding clean estimates is the same, and keeps the init latents
            return Estimate(conditional, unconditional, guide(conditional, unconditional, self.cfg_scale))
        guided = rescale(guide(output, other, self.cfg_scale), output, self.cfg_rescale)
        return Estimate(conditional, unconditional, self._clean(x, guided, sigma))

    def _outputs(self, x: Tensor, sigma: float) -> list[Tensor]:
        """The network's predictions (B, C, h, w): conditional, and unconditional with guidance."""
        batch = x.shape[0]
        low, high = self.cfg_interval
        count = 2 if low < sigma <= high else 1
        if self.savings is not None:
            self.savings.begin(sigma, count)
        scaled = (x / math.sqrt(1 + sigma**2)).to(self.dtype)  # the DDPM state, of unit variance
        timestep = self.noise_schedule.timestep(sigma)
        contexts = [context.expand(batch, -1, -1) for context in self.contexts[:count]]
        size = 1 if x.device.type == "cpu" and not self.batched else batch
        pieces = [self._evaluate(scaled, timestep, contexts, i, i + size) for i in range(0, batch, size)]
        return [torch.cat(outputs) for outputs in zip(*pieces, strict=True)]

    def _evaluate(
        self, scaled: Tensor, timestep: float, contexts: list[Tensor], first: int, end: int
    ) -> tuple[Tensor, ...]:
        """Predictions for images `first` to `end` with every context, in one call of the network."""
        count = len(contexts)
        x = torch.cat([scaled[first:end]] * count)  # (count * images, C, h, w)
        if self.extra is not None:
            x = torch.cat([x, self.extra.expand(x.shape[0], -1, -1, -1)], dim=1)  # (..., C + E, h, w)
        times = torch.full((x.shape[0],), timestep, dtype=torch.float32, device=x.device)
        context = torch.cat([context[first:end] for context in contexts])  # (count * images, T, D)
        if self.savings is None:
            output = self.network(x, times, context)
        else:
            output = self.savings(first, x, times, context)
        # Contiguous, whatever memory format the network uses: samplers and plugins see one layout only.
        return output.contiguous().chunk(count)

    def _clean(self, x: Tensor, output: Tensor, sigma: float) -> Tensor:
        """The clean estimate of a prediction, with the init latents blended in."""
        if self.prediction == "epsilon":
            output = x - sigma * output
        elif (
            self.prediction == "v"
        ):  # v = sqrt(a) eps - sqrt(1 - a) x0: Salimans and Ho 2022, arXiv:2202.00512
            output = x / (1 + sigma**2) - sigma / math.sqrt(1 + sigma**2) * output
        return output if self.blend is None else self.blend(output)
