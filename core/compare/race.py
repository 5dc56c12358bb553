"""A fair comparison of samplers: the same prompt and seed, the same number of network evaluations.

The error of each is measured against a reference run with 1,000 steps. Deterministic samplers follow the
probability-flow ODE, which has one solution, so all of them share one reference. An SDE sampler with a
Brownian path converges to its own image, so its reference is itself with more steps. A sampler that draws
fresh noise at each step does not converge: it has a time and an image, but no error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from core.errors import UserError
from core.figures.contact_sheet import labelled
from core.plugins import current
from core.sampling.exact import gaussian
from core.sampling.loop import run_sampler
from core.sampling.noise import SeededNoise
from core.sampling.registry import SamplerInfo, ScheduleInfo
from core.sampling.schedule import NoiseSchedule, last_part

if TYPE_CHECKING:
    from core.inference.pipeline import Pipeline
    from core.inference.run import Result

# The first registered one solves the ODE for the reference; `trailing` visits every level of the model.
REFERENCE_SAMPLERS, REFERENCE_SCHEDULE = ("dpmpp_2m", "heun", "ddim"), "trailing"


@dataclass(frozen=True)
class RaceEntry:
    """One sampler with one schedule. `rms` and `psnr` are None if the sampler does not converge."""

    sampler: str
    schedule: str
    steps: int
    evals: int
    rms: float | None  # of the latents against the reference's, which have a standard deviation of about 1
    psnr: float | None  # of the images, in decibels; infinite when they are equal
    seconds: float
    reference: str | None
    error: str | None = None  # why it failed
    images: tuple[Image.Image, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All fields but the images, ready for JSON (an infinite PSNR becomes None)."""
        fields = {name: value for name, value in vars(self).items() if name != "images"}
        return fields | {"psnr": None if self.psnr == math.inf else self.psnr}


@dataclass(frozen=True)
class _Reference:
    name: str
    latents: Tensor
    images: Sequence[Image.Image]


class Race:
    """A race with one prompt and seed for all samplers. `run` yields the entries one by one, in order."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        evals: int,
        samplers: Sequence[SamplerInfo],
        schedules: Sequence[ScheduleInfo] = (),
        reference_steps: int = 1000,
        **fields: Any,
    ) -> None:
        """schedules: each is run with each sampler; by default every sampler has the one it prefers.

        fields: the rest of the request, such as prompt, seed, batch and cfg_scale.
        """
        self.pipeline, self.evals, self.fields = pipeline, evals, fields
        self.reference_steps = reference_steps
        self.pairs = [(info, name) for info in samplers for name in self._schedules(info, schedules)]
        self._references: dict[str, _Reference] = {}

    def _schedules(self, info: SamplerInfo, chosen: Sequence[ScheduleInfo]) -> list[str]:
        if chosen:
            return [schedule.name for schedule in chosen]
        return [info.schedule or self.pipeline.defaults.schedule]

    def run(self) -> Iterator[RaceEntry]:
        for info, schedule in self.pairs:
            try:
                yield self._entry(info, schedule)
            except UserError as error:  # a plugin that fails does not stop the others
                yield RaceEntry(info.name, schedule, 0, 0, None, None, 0.0, None, error=str(error))

    def _entry(self, info: SamplerInfo, schedule: str) -> RaceEntry:
        levels = current.registry().schedule(schedule)
        steps = steps_for(self.evals, info, levels, self.pipeline.model.noise_schedule)
        result = self._generate(info.name, schedule, steps)
        reference = self._reference(info, schedule)
        rms, decibels = (None, None) if reference is None else _distances(result, reference)
        return RaceEntry(
            info.name,
            schedule,
            steps,
            result.evals,
            rms,
            decibels,
            result.seconds["denoise"],
            None if reference is None else reference.name,
            images=tuple(result.images),
        )

    def _reference(self, info: SamplerInfo, schedule: str) -> _Reference | None:
        if info.draws_noise({}):
            if info.noise == "fresh":
                return None
            return self._made(info.name, schedule)
        known = current.registry().samplers
        solver = next(name for name in REFERENCE_SAMPLERS if name in known)
        return self._made(solver, REFERENCE_SCHEDULE)

    def _made(self, sampler: str, schedule: str) -> _Reference:
        name = f"{sampler} {schedule} {self.reference_steps}"
        if name not in self._references:
            result = self._generate(sampler, schedule, self.reference_steps)
            self._references[name] = _Reference(name, result.steps[-1].x, result.images)
        return self._references[name]

    def _generate(self, sampler: str, schedule: str, steps: int) -> Result:
        return self.pipeline.generate(sampler=sampler, schedule=schedule, steps=steps, **self.fields)


def steps_for(evals: int, info: SamplerInfo, schedule: ScheduleInfo, model: NoiseSchedule) -> int:
    """The most steps that fit into `evals` evaluations: see `fit`."""
    return fit(evals, info, schedule, model)[0]


def fit(
    evals: int, info: SamplerInfo, schedule: ScheduleInfo, model: NoiseSchedule, strength: float = 1.0
) -> tuple[int, int]:
    """(steps, their evaluations): the most steps whose last `strength` part takes at most `evals`.

    Evaluations are counted with an exact denoiser in place of the network, as a sampler may need more at some
    steps. At least one step runs. An adaptive sampler chooses its own steps: for it the first guess is kept.
    """
    least, most = math.ceil(1 / strength), max(evals // info.evals, 1)
    steps = max(min(math.ceil((most + 1) / strength), len(model)), least)
    while steps > least and int(steps * strength) > most:
        steps -= 1
    if info.adaptive:
        return steps, evals
    while True:
        cost = _counted(info, last_part(schedule.sigmas(model, steps), strength))
        if cost <= evals or steps <= least:
            return steps, cost
        steps -= 1


def _counted(info: SamplerInfo, sigmas: Sequence[float]) -> int:
    calls, exact, shape = 0, gaussian(), (1, 2, 2)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return exact(x, sigma)

    x = sigmas[0] * SeededNoise(0, 1, shape)(sigmas[0], 0.0)
    for _ in run_sampler(info, denoise, x, sigmas, SeededNoise(1, 1, shape), {}):
        pass
    return calls


def _distances(result: Result, reference: _Reference) -> tuple[float, float]:
    """Root mean square of the latents, and mean PSNR of the images."""
    rms = float((result.steps[-1].x - reference.latents).float().square().mean().sqrt())
    pairs = zip(result.images, reference.images, strict=True)
    return rms, sum(psnr(a, b) for a, b in pairs) / len(result.images)


def psnr(image: Image.Image, other: Image.Image) -> float:
    """Peak signal-to-noise ratio in decibels of two 8-bit images of one size; infinite when equal."""
    a, b = (np.asarray(picture.convert("RGB"), dtype=np.float64) for picture in (image, other))
    error = float(np.square(a - b).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def contact_sheet(entries: Sequence[RaceEntry], columns: int) -> Image.Image:
    """The first image of each entry with its label below, `columns` in a row."""
    cells = []
    for entry in entries:
        cost = "failed" if entry.error else f"{entry.evals} evals"
        distance = "" if entry.rms is None else f", rms {entry.rms:.3f}"
        label = f"{entry.sampler}\n{entry.schedule}\n{cost}{distance}"
        cells.append((label, entry.images[0] if entry.images else None))
    return labelled(cells, columns, narrowest=150)
