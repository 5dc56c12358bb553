"""What the views that need a model share: progress and cancelling, settings, and runs from given noise."""

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
    """Progress of a view: `told(done, due)` is called with evaluation counts; setting `cancel` stops it."""

    cancel: threading.Event = field(default_factory=threading.Event)
    told: Callable[[int, int], None] = lambda done, due: None
    due: int = 0
    done: int = 0

    def expect(self, evals: int) -> None:
        """Set how many evaluations there are in all."""
        self.due = evals

    def step(self, evals: int = 1) -> None:
        """Count `evals` more as done. Raises Cancelled if the view was stopped."""
        self.done += evals
        self.told(self.done, self.due)
        self.check()

    def check(self) -> None:
        """Raises Cancelled if the view was stopped."""
        if self.cancel.is_set():
            raise Cancelled("the view was stopped")


def settings_of(pipeline: Pipeline, **fields: Any) -> Settings:
    """The settings of a run; fields that are None take the model's defaults. Raises UserError."""
    asked = {name: value for name, value in fields.items() if value is not None}
    return Request.from_mapping(asked).resolve(pipeline.defaults, current.registry())


def run(pipeline: Pipeline, settings: Settings, watch: Watch, *, keep_steps: bool = False) -> Result:
    """Run these settings to the end and report each step to `watch`."""
    running, seen = (
        pipeline.stream(Request.from_settings(settings), cancel=watch.cancel, keep_steps=keep_steps),
        0,
    )
    for step in running:
        watch.step(step.evals - seen)
        seen = step.evals
    return running.result()


def evals_of(settings: Settings) -> int:
    """About how many network evaluations a run of these settings takes."""
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
    """Clean latents (1, C, h, w) from given unit noise of that shape.

    contexts: prompt embeddings (1, T, D) of the prompt and of the negative prompt. known, strength: clean
    latents to start from, as in img2img; without them the run starts from noise alone.
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
    """(C, h, w) of an image's latent."""
    return pipeline.model.latent_shape(settings.width, settings.height)


def fitted(image: Image.Image, pipeline: Pipeline) -> Image.Image:
    """An image as RGB, resized and cropped to the model's default size."""
    size = (pipeline.defaults.width, pipeline.defaults.height)
    return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)


def norm(x: Tensor) -> float:
    """Root mean square of x, of any shape: its length as a vector over sqrt(n), about 1 for unit noise."""
    return float(x.double().square().mean().sqrt())


def rms(a: Tensor, b: Tensor) -> float:
    """Root mean square of a - b, both of the same shape."""
    return norm(a.double().cpu() - b.double().cpu())


def decibels(a: Image.Image, b: Image.Image) -> float:
    """PSNR of two images; 99 for equal ones, as JSON has no infinity."""
    from core.compare.race import psnr

    found = psnr(a, b)
    return 99.0 if math.isinf(found) else found
