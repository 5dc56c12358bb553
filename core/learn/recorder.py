"""What the views that need a model share: who watches, what is asked for, runs from any noise."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from core.errors import Cancelled
from core.plugins import current
from core.request.request import Request
from core.sampling.schedule import last_part

if TYPE_CHECKING:
    from torch import Tensor

    from core.inference.pipeline import Pipeline
    from core.inference.run import Result
    from core.request.settings import Settings


@dataclass
class Watch:
    """Who waits for a view: `cancel` stops it, `told(done, due)` hears how many evaluations are done."""

    cancel: threading.Event = field(default_factory=threading.Event)
    told: Callable[[int, int], None] = lambda done, due: None
    due: int = 0
    done: int = 0

    def expect(self, evals: int) -> None:
        """So many evaluations are due in all."""
        self.due = evals

    def step(self, evals: int = 1) -> None:
        """So many more are done. Raises Cancelled when it was stopped."""
        self.done += evals
        self.told(self.done, self.due)
        self.check()

    def check(self) -> None:
        """Raises Cancelled when it was stopped."""
        if self.cancel.is_set():
            raise Cancelled("the view was stopped")


def settings_of(pipeline: Pipeline, **fields: Any) -> Settings:
    """What will run: what is None is left to the model. Raises UserError."""
    asked = {name: value for name, value in fields.items() if value is not None}
    return Request.from_mapping(asked).resolve(pipeline.defaults, current.registry())


def run(pipeline: Pipeline, settings: Settings, watch: Watch, *, keep_steps: bool = False) -> Result:
    """A run of these settings to its end, told to `watch` step by step."""
    running, seen = (
        pipeline.stream(Request.from_settings(settings), cancel=watch.cancel, keep_steps=keep_steps),
        0,
    )
    for step in running:
        watch.step(step.evals - seen)
        seen = step.evals
    return running.result()


def evals_of(settings: Settings) -> int:
    """About how often a run of these settings asks the network."""
    return settings.steps * current.registry().sampler(settings.sampler).evals


def sample(
    pipeline: Pipeline,
    noise: Tensor,
    contexts: tuple[Tensor, Tensor],
    settings: Settings,
    watch: Watch,
    *,
    known: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Clean latents (1, C, h, w) from unit noise of that shape, whoever made it.

    contexts: text states (1, T, D) with the prompt and without. known, strength: clean latents to start from
    in place of noise alone, as img2img does.
    """
    from core.inference.denoising import build_denoiser
    from core.inference.start import Start, start_of
    from core.sampling.loop import run_sampler
    from core.sampling.noise import noise_source

    registry = current.registry()
    info, grid = registry.sampler(settings.sampler), registry.schedule(settings.schedule)
    levels = last_part(grid.sigmas(pipeline.model.noise_schedule, settings.steps), strength)
    start = start_of(pipeline.model, None, settings)
    denoiser = build_denoiser(pipeline.model, settings, start, embeddings=contexts, cancel=watch.cancel)
    x = Start(known).state(noise.to(pipeline.device), levels[0])
    shape = (x.shape[1], x.shape[2], x.shape[3])
    source = noise_source(info.noise, settings.seed, 1, shape, pipeline.device)
    seen = 0
    for step in run_sampler(info, denoiser, x, levels, source, settings.options):
        x = step.x
        watch.step(denoiser.evals - seen)
        seen = denoiser.evals
    return x


def latent_shape(pipeline: Pipeline, settings: Settings) -> tuple[int, int, int]:
    """(C, h, w) of a picture's latent."""
    return pipeline.model.latent_shape(settings.width, settings.height)


def fitted(image: Image.Image, pipeline: Pipeline) -> Image.Image:
    """A picture as RGB of the model's own size, cut to its shape."""
    size = (pipeline.defaults.width, pipeline.defaults.height)
    return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)


def norm(x: Tensor) -> float:
    """The length of all numbers of x as one vector, over the square root of how many: 1 for unit noise."""
    return float(x.double().square().mean().sqrt())


def rms(a: Tensor, b: Tensor) -> float:
    """Root mean square of the difference."""
    return norm(a.double().cpu() - b.double().cpu())


def decibels(a: Image.Image, b: Image.Image) -> float:
    """Their PSNR; 99 for equal ones, for JSON has no infinity."""
    from core.compare.race import psnr

    found = psnr(a, b)
    return 99.0 if math.isinf(found) else found
